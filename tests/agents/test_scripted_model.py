"""The scripted model, asked by the official client and by pydantic-ai over HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from acp_tasks.agents.scripted_model import ScriptedModel

REFUND: Any = {
    "type": "function",
    "function": {
        "name": "case_refund",
        "parameters": {
            "type": "object",
            "properties": {"case_id": {"type": "string"}, "cents": {"type": "integer"}},
            "required": ["case_id", "cents"],
        },
    },
}


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(seed=7) as served:
        yield served


@pytest.fixture
def client(model: ScriptedModel) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=model.url, api_key="any", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    return client.chat.completions.create(model="m-1", messages=[{"role": "user", "content": text}], **options)


def test_the_same_conversation_and_seed_have_the_same_answer_word_for_word(client: openai.OpenAI) -> None:
    first, again, other = ask(client, "hello"), ask(client, "hello"), ask(client, "hello there")
    assert first == again
    assert first.id != other.id
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert first.usage.completion_tokens == len(first.choices[0].message.content.split())
    with ScriptedModel(seed=8) as stranger, openai.OpenAI(base_url=stranger.url, api_key="any") as elsewhere:
        assert ask(elsewhere, "hello").choices[0].message.content != first.choices[0].message.content


def test_an_answer_is_no_longer_than_asked_for(client: openai.OpenAI) -> None:
    short = ask(client, "!words 50", max_tokens=5)
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (5, "length")
    assert ask(client, "!words 5", max_completion_tokens=5).choices[0].finish_reason == "stop"


def test_tools_are_called_in_turns_and_then_it_ends_with_their_answer(client: openai.OpenAI) -> None:
    talk: list[Any] = [{"role": "user", "content": "Please refund me.\ncase_id: c1\ncents: 1250"}]
    called = client.chat.completions.create(model="m-1", messages=talk, tools=[REFUND])
    (call,) = called.choices[0].message.tool_calls or []
    assert called.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("case_refund", '{"case_id": "c1", "cents": 1250}')

    talk += [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "a lead said no"}]
    ended = client.chat.completions.create(model="m-1", messages=talk, tools=[REFUND])
    assert (ended.choices[0].message.content or "").endswith(": a lead said no")
    assert ended.usage is not None
    assert ended.usage.prompt_tokens_details is not None
    assert 0 < (ended.usage.prompt_tokens_details.cached_tokens or 0) < ended.usage.prompt_tokens


def test_a_stream_says_the_same_in_pieces_and_its_usage_when_it_is_asked_for(client: openai.OpenAI) -> None:
    whole = ask(client, "hello")
    chunks = list(ask(client, "hello", stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in ask(client, "hello", stream=True))

    directed = "!call case_refund {}\n!also case_refund {}"
    calls = [chunk.choices[0].delta.tool_calls for chunk in ask(client, directed, tools=[REFUND], stream=True)]
    assert [call.index for some in calls for call in some or ()] == [0, 0, 1, 1]


def test_failures_come_as_often_as_directed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        ask(client, "!fail 429 1 0.5")
    assert limited.value.response.headers["retry-after"] == "0.5"
    assert ask(client, "!fail 429 1 0.5").choices[0].finish_reason == "stop"
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            ask(client, "!fail 500")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="m-1", messages=[])
    with pytest.raises(openai.APIConnectionError):
        ask(client, "!cut 0")
    with pytest.raises(openai.APITimeoutError):
        ask(client, "!slow 30", timeout=0.1)


def test_usage_may_be_missing_or_directed(client: openai.OpenAI) -> None:
    assert ask(client, "!usage none").usage is None
    directed = ask(client, "!usage 900 80 500").usage
    assert (directed.prompt_tokens, directed.completion_tokens) == (900, 80)
    assert directed.prompt_tokens_details.cached_tokens == 500


def test_a_key_is_asked_for_where_there_is_one() -> None:
    with ScriptedModel(key="secret") as served:
        with openai.OpenAI(base_url=served.url, api_key="secret") as client:
            assert ask(client, "hello").choices
        with openai.OpenAI(base_url=served.url, api_key="guess") as client, pytest.raises(openai.AuthenticationError):
            ask(client, "hello")


class Outcome(BaseModel):
    text: str
    refunded: bool


async def work_two_cases(url: str) -> tuple[list[str], Any, Any, Any]:
    """The cases that were answered, how the first ended, what the second asks a person, and how its denial ended it."""
    replied: list[str] = []
    async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
        chat = OpenAIChatModel("m-1", provider=OpenAIProvider(openai_client=client))
        agent: Any = Agent(chat, output_type=[Outcome, DeferredToolRequests], instructions="You are the support desk.")

        @agent.tool_plain
        def case_reply(case_id: str, text: str) -> str:
            replied.append(case_id)
            return "sent"

        @agent.tool_plain(requires_approval=True)
        def case_refund(case_id: str, amount_usd: str) -> str:
            raise AssertionError("nobody allowed it")

        ended = await agent.run('Where is my parcel?\n{"case_id": "c1"}')
        parked = await agent.run("I want my money back.\ncase_id: c2\namount_usd: 12.50")
        (asked,) = parked.output.approvals
        results = DeferredToolResults(approvals={asked.tool_call_id: ToolDenied("not without a receipt")})
        denied = await agent.run(message_history=parked.all_messages(), deferred_tool_results=results)
    return replied, ended.output, asked.args_as_dict(), denied


def test_pydantic_ai_runs_an_agent_on_it(model: ScriptedModel) -> None:
    replied, ended, asked, denied = asyncio.run(work_two_cases(model.url))
    assert isinstance(ended, Outcome)
    assert replied == ["c1"]
    assert asked == {"case_id": "c2", "amount_usd": "12.50"}
    assert "not without a receipt" in denied.output.text
    assert denied.usage.input_tokens > 0


def test_it_is_a_process_that_says_where_it_listens_and_ends_when_it_is_told() -> None:
    command = [sys.executable, "-m", "acp_tasks.agents.scripted_model", "--seed", "7", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        url = served.stdout.readline().removeprefix("model at ").strip()
        with openai.OpenAI(base_url=url, api_key="any") as client:
            assert ask(client, "!say four words it is").usage.completion_tokens == 4
        served.terminate()
        assert served.wait(10) == 0
