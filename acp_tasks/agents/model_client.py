"""`run.model(name)`: a governed client for OpenAI-compatible endpoints, on the official client library.

    model = current_run().model("gpt-5-mini")
    answer = model.chat([{"role": "user", "content": "..."}], max_tokens=500)
    for chunk in model.stream([...]): ...

Each call is asked for, paid for and written down by itself: who may use the model, what the call may use at most (held
before anything is sent, and a bound of the `max_tokens` that is sent), what the answer says it used. Where the answer
does not say, everything that was set aside counts, and is flagged. For clients of another library, `reserve()` is the
same around any call.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import openai
from celery.exceptions import SoftTimeLimitExceeded
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from acp_tasks import bootstrap
from acp_tasks.agents.model_calls import Reservation, reserve
from acp_tasks.agents.sending import patiently, unwrapped
from acp_tasks.interrupt import heed
from governance.config import Settings
from governance.core.digest import canonical_json
from governance.core.prices import TokensUsed
from governance.errors import InvalidOption, ModelCallFailed, ModelCallRefused

if TYPE_CHECKING:
    from acp_tasks.run import Run

#: What a call may answer that does not say.
OUTPUT_TOKENS: Final = 1024
# The two names the protocol has for the same bound.
_BOUNDS: Final = ("max_tokens", "max_completion_tokens")
# Whose protocol it is; whoever speaks it as well is not known by name.
_PROVIDER: Final = "openai"
# A token is hardly ever longer, so that what is counted while it streams is never more than it was.
_TOKEN_CHARS_MAX: Final = 8


class GovernedModel:
    """One model, for one attempt of an action. Messages and options are the official client's."""

    def __init__(self, run: "Run", name: str) -> None:
        self._run = run
        self.name = name

    def chat(self, messages: Sequence[Any], **options: Any) -> ChatCompletion:
        """The answer as a whole.

        Raises ModelCallRefused when governance says no, ModelCallFailed when the endpoint does, StoreUnavailable,
        AttemptFenced, and ActionStopped when a kill switch strikes.
        """
        with self._reserved(messages, options) as reservation:
            answer: ChatCompletion = patiently(
                self._run,
                reservation,
                lambda: _client().chat.completions.create(**self._asked(messages, options, reservation)),
            )
            reservation.span.used(response_model=answer.model, response_id=answer.id)
            reservation.settle(used_of(answer.usage))
        return answer

    def stream(self, messages: Sequence[Any], **options: Any) -> Iterator[ChatCompletionChunk]:
        """The answer in pieces; ends early when a kill switch is engaged, or when it uses more than it may.

        Raises as `chat` does, before the first piece or between two.
        """
        with self._reserved(messages, options) as reservation:
            asked = self._asked(messages, options, reservation)
            asked |= {
                "stream": True,
                "stream_options": {"include_usage": True, **(options.get("stream_options") or {})},
            }
            pieces = patiently(self._run, reservation, lambda: _client().chat.completions.create(**asked))
            usage: CompletionUsage | None = None
            spoken = _Spoken()
            with pieces:
                chunks = iter(pieces)
                while (chunk := self._next(chunks)) is not None:
                    usage = chunk.usage or usage
                    reservation.span.used(response_model=chunk.model, response_id=chunk.id)
                    spoken.hear(chunk)
                    if spoken.tokens > reservation.output_tokens_held and usage is None:
                        held = reservation.output_tokens_held
                        bound = f"its answer goes on beyond the {held} tokens that are held for it"
                        raise ModelCallRefused(self.name, "hold:used-up", bound)
                    heed(self._run)
                    yield chunk
            reservation.settle(used_of(usage))

    def reserve(self, input_characters: int, max_tokens: int = OUTPUT_TOKENS) -> Reservation:
        """Asks for one call and holds what it may use: a context manager, for calls by another library.

        Send at most its `output_tokens`, and give its `settle` what the answer says was used. Raises as `chat` does.
        """
        return reserve(self._run, self.name, input_characters, max_tokens, api_url=_settings().model_url)

    def _reserved(self, messages: Sequence[Any], options: dict[str, Any]) -> Reservation:
        asked = canonical_json([list(messages), options.get("tools") or []], default=_plain)
        if options.get("extra_body"):
            raise InvalidOption("extra_body", "given", "plain options: what is put over the body is not governed")
        bound = min((int(options[name]) for name in _BOUNDS if options.get(name)), default=OUTPUT_TOKENS)
        url = _settings().model_url
        return reserve(
            self._run, self.name, len(asked), bound, answers=int(options.get("n") or 1), api_url=url, provider=_PROVIDER
        )

    def _asked(self, messages: Sequence[Any], options: dict[str, Any], reservation: Reservation) -> dict[str, Any]:
        bound = next((name for name in _BOUNDS if options.get(name)), _BOUNDS[0])
        rest = {name: value for name, value in options.items() if name not in _BOUNDS}
        return {**rest, "model": self.name, "messages": list(messages), bound: reservation.output_tokens}

    def _next(self, chunks: Iterator[ChatCompletionChunk]) -> ChatCompletionChunk | None:
        try:
            return next(chunks, None)
        except SoftTimeLimitExceeded:
            raise
        except Exception as problem:
            raise unwrapped(problem) or ModelCallFailed(self.name, f"the stream broke off: {problem!r}") from problem


class _Spoken:
    """How much an answer has said so far, in tokens, at least."""

    def __init__(self) -> None:
        self._pieces = self._chars = 0

    @property
    def tokens(self) -> int:
        return max(self._pieces, self._chars // _TOKEN_CHARS_MAX)

    def hear(self, chunk: ChatCompletionChunk) -> None:
        for choice in chunk.choices:
            said = choice.delta.content or ""
            said += "".join(call.function.arguments or "" for call in choice.delta.tool_calls or () if call.function)
            self._pieces += bool(said)
            self._chars += len(said)


def used_of(usage: CompletionUsage | None) -> TokensUsed | None:
    """What an answer says it used; None when it does not say."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return TokensUsed(usage.prompt_tokens, usage.completion_tokens, cached)


def _client() -> openai.OpenAI:
    """The client of this process for the endpoint of its settings; the key is read anew, so that it can be replaced."""
    settings = _settings()
    if not settings.model_url:
        raise ModelCallFailed("any", "ACP_MODEL_URL is not set: no endpoint is known")
    key = "none"
    if settings.model_key_file is not None:
        try:
            key = settings.model_key_file.read_text(encoding="utf-8").strip()
        except OSError as problem:
            raise ModelCallFailed("any", f"ACP_MODEL_KEY_FILE cannot be read: {problem.strerror}") from problem
    return _client_for(os.getpid(), settings.model_url, key, settings.model_timeout_s)


@lru_cache(maxsize=4)
def _client_for(pid: int, url: str, key: str, timeout_s: float) -> openai.OpenAI:
    # What is tried again is decided here, and not twice.
    return openai.OpenAI(base_url=url, api_key=key, timeout=timeout_s, max_retries=0)


def _settings() -> Settings:
    return bootstrap.parts().settings


def _plain(value: object) -> object:
    """A message that is an object of the client library."""
    return cast(Any, value).model_dump(mode="json", exclude_none=True)
