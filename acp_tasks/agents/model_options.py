"""What a call of a model asks for: how long its answers may be, how many there are, and what goes in with the messages.

Whatever a client library leaves unsaid (None, and its own words for it) is not said here either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import openai

from governance.core.digest import canonical_json
from governance.core.money import TOKENS_MAX
from governance.errors import InvalidOption

#: What a call may answer that does not say.
OUTPUT_TOKENS: Final = 1024
# The two names the protocol has for the same bound.
_BOUNDS: Final = ("max_tokens", "max_completion_tokens")
_ANSWERS: Final = "n"
# How the request is sent; nothing of it reaches the model.
_ABOUT_SENDING: Final = ("timeout", "extra_headers", "extra_query", "stream", "stream_options")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, read: `max_tokens` bounds each of its `answers`, `options` are the others, as they were given."""

    messages: tuple[Any, ...]
    options: Mapping[str, Any]
    bound: str
    max_tokens: int
    answers: int
    input_characters: int

    def body(self, model: str, max_tokens: int) -> dict[str, Any]:
        """What the official client is given, with the bound that is held."""
        return {**self.options, "model": model, "messages": list(self.messages), self.bound: max_tokens}


def read(model: str, messages: Sequence[Any], options: Mapping[str, Any], *, stream: bool) -> Asked:
    """Of two bounds the smaller counts. Raises InvalidOption, which names the option."""
    given = {name: value for name, value in options.items() if not _unsaid(value)}
    _only_governed(model, given, stream=stream)
    bounds = {name: whole(name, given.pop(name)) for name in _BOUNDS if name in given}
    max_tokens = min(bounds.values(), default=OUTPUT_TOKENS)
    answers = whole(_ANSWERS, given.get(_ANSWERS, 1), most=TOKENS_MAX // max_tokens)
    sent = tuple(messages)
    characters = _characters("messages", sent) + sum(
        _characters(name, value)
        for name, value in given.items()
        if name not in _ABOUT_SENDING and not isinstance(value, int | float)
    )
    return Asked(sent, given, next(iter(bounds), _BOUNDS[0]), max_tokens, answers, characters)


def whole(name: str, value: object, least: int = 1, most: int = TOKENS_MAX) -> int:
    """`value` as a number that can be held. Raises InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = value if not isinstance(value, int) or value.bit_length() < 64 else f"{value.bit_length()} bits"
        raise InvalidOption(name, shown, f"a whole number from {least} to {most}")
    return value


def _unsaid(value: object) -> bool:
    return value is None or isinstance(value, openai.Omit | openai.NotGiven)


def _only_governed(model: str, given: dict[str, Any], *, stream: bool) -> None:
    """Takes out what says nothing new, and refuses what would go round what was asked for."""
    if given.pop("extra_body", None):
        raise InvalidOption("extra_body", "given", "plain options: what is put over the body is not governed")
    if (named := given.pop("model", model)) != model:
        raise InvalidOption("model", named, f"{model}, which is asked for: take run.model({named!r})")
    if given.pop("stream", stream) is not stream:
        raise InvalidOption(
            "stream", not stream, "the method of that name for pieces, chat() for the answer as a whole"
        )


def _characters(name: str, value: object) -> int:
    """Of the request as JSON; a name that is sent with its value counts too."""
    try:
        return len(canonical_json([name, value], default=_plain))
    except (TypeError, ValueError) as problem:
        raise InvalidOption(name, type(value).__name__, f"JSON ({problem})") from problem


def _plain(value: object) -> object:
    """A message that is an object of the client library."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return dump(mode="json", exclude_none=True)
