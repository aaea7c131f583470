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
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import openai
from celery.exceptions import SoftTimeLimitExceeded
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from acp_tasks import bootstrap
from acp_tasks.agents import model_options
from acp_tasks.agents.model_calls import Reservation, reserve
from acp_tasks.agents.model_options import OUTPUT_TOKENS, Asked
from acp_tasks.agents.sending import patiently, unwrapped
from acp_tasks.interrupt import heed
from governance.config import Settings
from governance.core.prices import TokensUsed
from governance.errors import ModelCallFailed, ModelCallRefused

if TYPE_CHECKING:
    from acp_tasks.run import Run

# Whose protocol it is; whoever speaks it as well is not known by name.
_PROVIDER: Final = "openai"
# A token is hardly ever longer, so that what is counted while it streams is never more than it was.
_TOKEN_CHARS_MAX: Final = 8
# Not in the protocol, and sent by many who speak it.
_THOUGHTS: Final = ("reasoning_content", "reasoning")


class GovernedModel:
    """One model, for one attempt of an action. Messages and options are the official client's."""

    def __init__(self, run: "Run", name: str) -> None:
        self._run = run
        self.name = name

    def chat(self, messages: Sequence[Any], **options: Any) -> ChatCompletion:
        """The answer as a whole.

        Raises ModelCallRefused when governance says no, ModelCallFailed when the endpoint does, InvalidOption,
        StoreUnavailable, AttemptFenced, and ActionStopped when a kill switch strikes.
        """
        asked = model_options.read(self.name, messages, options, stream=False)
        client = _client()
        with self._reserved(asked) as reservation:
            body = asked.body(self.name, reservation.output_tokens)
            answer: ChatCompletion = patiently(self._run, reservation, lambda: client.chat.completions.create(**body))
            reservation.span.used(response_model=answer.model, response_id=answer.id)
            reservation.settle(used_of(answer.usage, said=_says_something(answer)))
        return answer

    def stream(self, messages: Sequence[Any], **options: Any) -> Iterator[ChatCompletionChunk]:
        """The answer in pieces; ends early when a kill switch is engaged, or when it uses more than it may.

        Raises as `chat` does, before the first piece or between two.
        """
        asked = model_options.read(self.name, messages, options, stream=True)
        client = _client()
        with self._reserved(asked) as reservation:
            body = asked.body(self.name, reservation.output_tokens)
            body |= {"stream": True, "stream_options": {**body.get("stream_options", {}), "include_usage": True}}
            pieces = patiently(self._run, reservation, lambda: client.chat.completions.create(**body))
            usage: CompletionUsage | None = None
            spoken = _Spoken()
            with pieces:
                chunks = iter(pieces)
                while (chunk := self._next(chunks)) is not None:
                    usage = chunk.usage or usage
                    reservation.span.used(response_model=chunk.model, response_id=chunk.id)
                    if spoken.hear(chunk) > reservation.output_tokens_held:
                        held = reservation.output_tokens_held
                        bound = f"its answer goes on beyond the {held} tokens that are held for it"
                        raise ModelCallRefused(self.name, "hold:used-up", bound)
                    heed(self._run)
                    yield chunk
            reservation.settle(used_of(usage, said=spoken.tokens > 0))

    def reserve(self, input_characters: int, max_tokens: int = OUTPUT_TOKENS) -> Reservation:
        """Asks for one call and holds what it may use: a context manager, for calls by another library.

        Send at most its `output_tokens`, and give its `settle` what the answer says was used. Raises as `chat` does.
        """
        characters = model_options.whole("input_characters", input_characters, least=0)
        bound = model_options.whole("max_tokens", max_tokens)
        return reserve(self._run, self.name, characters, bound, api_url=_settings().model_url)

    def _reserved(self, asked: Asked) -> Reservation:
        return reserve(
            self._run,
            self.name,
            asked.input_characters,
            asked.max_tokens,
            answers=asked.answers,
            api_url=_settings().model_url,
            provider=_PROVIDER,
        )

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

    def hear(self, chunk: ChatCompletionChunk) -> int:
        """With this piece."""
        for choice in chunk.choices:
            said = _words(choice.delta)
            self._pieces += bool(said)
            self._chars += len(said)
        return self.tokens


def _words(delta: ChoiceDelta) -> str:
    """All that a piece says: words, arguments, and what the model thinks, by the names that endpoints have for it."""
    arguments = [call.function.arguments for call in delta.tool_calls or () if call.function]
    thoughts = [(delta.model_extra or {}).get(name) for name in _THOUGHTS]
    return "".join(part for part in (delta.content, delta.refusal, *arguments, *thoughts) if isinstance(part, str))


def used_of(usage: CompletionUsage | None, *, said: bool) -> TokensUsed | None:
    """What an answer says it used; None when it does not say, or cannot be right: it has words and used none for them.

    The client library hands on what it was sent, whatever that is.
    """
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    cached, written = (getattr(details, name, None) or 0 for name in ("cached_tokens", "cache_write_tokens"))
    used = TokensUsed(usage.prompt_tokens, usage.completion_tokens, cached, written)
    if not used.is_plausible or not used.input or (said and not used.output):
        return None
    # Some leave what a model thinks out of its answer's tokens, and have it in the sum alone.
    unnamed = usage.total_tokens - used.total if isinstance(usage.total_tokens, int) else 0
    return replace(used, output=used.output + max(unnamed, 0))


def _says_something(answer: ChatCompletion) -> bool:
    return any(choice.message.content or choice.message.tool_calls for choice in answer.choices)


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
