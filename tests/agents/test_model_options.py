"""What a call asks for is read before anything is held: its bounds, and all that goes in."""

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from acp_tasks.agents.model_client import used_of
from acp_tasks.agents.model_options import OUTPUT_TOKENS, read
from governance.core.money import TOKENS_MAX
from governance.core.prices import TokensUsed
from governance.errors import InvalidOption

ASKED: list[Any] = [{"role": "user", "content": "hello"}]
REFUND: Any = {"type": "function", "function": {"name": "refund"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"description": "x" * 3000}}}


class Answer(BaseModel):
    text: str


def characters(**options: Any) -> int:
    return read("m-1", ASKED, options, stream=False).input_characters


@pytest.mark.parametrize("option", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "5", True, [], TOKENS_MAX + 1, 10**300])
def test_a_bound_is_a_whole_number_from_one_on(option: str, value: object) -> None:
    with pytest.raises(InvalidOption) as refused:
        read("m-1", ASKED, {option: value}, stream=False)
    assert refused.value.option == option
    assert str(refused.value)


def test_of_two_bounds_the_smaller_is_held_and_sent() -> None:
    for options in ({"max_tokens": 7, "max_completion_tokens": 90}, {"max_tokens": 90, "max_completion_tokens": 7}):
        asked = read("m-1", ASKED, options, stream=False)
        assert asked.max_tokens == 7
        body = asked.body("m-1", 5)
        assert [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body] == [5]
    newer = read("m-1", ASKED, {"max_completion_tokens": 7}, stream=False).body("m-1", 5)
    assert newer == {"model": "m-1", "messages": ASKED, "max_completion_tokens": 5}


def test_answers_together_are_not_more_than_can_be_held() -> None:
    assert read("m-1", ASKED, {"n": 3, "max_tokens": 10}, stream=False).answers == 3
    with pytest.raises(InvalidOption, match="n="):
        read("m-1", ASKED, {"n": TOKENS_MAX // 10 + 1, "max_tokens": 10}, stream=False)


@pytest.mark.parametrize(
    "option", ["tools", "response_format", "functions", "prediction", "an_option_of_next_year", "user"]
)
def test_whatever_is_sent_goes_in(option: str) -> None:
    value = "x" * 3000 if option == "user" else [SCHEMA] if option in ("tools", "functions") else SCHEMA
    assert characters(**{option: value}) > characters() + 3000


def test_what_is_not_said_or_not_for_the_model_does_not() -> None:
    unsaid = {"tools": openai.omit, "n": None, "max_tokens": openai.NOT_GIVEN, "extra_body": None}
    asked = read("m-1", ASKED, unsaid, stream=False)
    assert (asked.input_characters, asked.answers, asked.max_tokens) == (characters(), 1, OUTPUT_TOKENS)
    assert asked.body("m-1", 5) == {"model": "m-1", "messages": ASKED, "max_tokens": 5}
    assert characters(timeout=openai.Timeout(3), extra_headers={"x": "y" * 100}, temperature=0.5) == characters()
    assert characters(extra_body={}, model="m-1", stream=False) == characters()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("extra_body", {"max_tokens": 10**6}),
        ("model", "m-2"),
        ("stream", True),
        ("tools", iter([REFUND])),
        ("response_format", Answer),
        ("response_format", {"schema": float("nan")}),
    ],
)
def test_what_would_go_round_it_or_cannot_be_read_is_refused(option: str, value: object) -> None:
    with pytest.raises(InvalidOption) as refused:
        read("m-1", ASKED, {option: value}, stream=False)
    assert refused.value.option == option


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ((10, 5, None), TokensUsed(10, 5)),
        ((10, 5, 15), TokensUsed(10, 5)),
        # What a model has thought is in the sum alone.
        ((10, 5, 40), TokensUsed(10, 30)),
        ((10, 0, 10), None),
        ((0, 5, 5), None),
        ((-10, 5, 5), None),
        ((10, -5, 5), None),
        (("10", 5, 15), None),
        ((10.0, 5, 15), None),
        ((True, 5, 6), None),
        ((None, None, 15), None),
        ((10, TOKENS_MAX + 1, 15), None),
    ],
)
def test_usage_that_cannot_be_is_none(said: tuple[Any, Any, Any], used: TokensUsed | None) -> None:
    prompt, completion, total = said
    usage = openai.types.CompletionUsage.model_construct(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=total
    )
    assert used_of(usage, said=True) == used


def test_an_answer_without_a_word_may_have_used_none_for_it() -> None:
    usage = openai.types.CompletionUsage(prompt_tokens=10, completion_tokens=0, total_tokens=10)
    assert used_of(usage, said=False) == TokensUsed(10, 0)
    assert used_of(None, said=False) is None
