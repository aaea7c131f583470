"""Spans of what governance does, for whoever traces; without a tracer they cost a call and nothing is imported.

Telemetry may be lost: nothing here decides, and nothing that decides reads it. `acp_tasks.tracing` has the tracer that
speaks OpenTelemetry.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

Attribute: TypeAlias = str | int | float | bool


class Span(Protocol):
    """One piece of work while it lasts."""

    def set(self, attributes: Mapping[str, Attribute | None]) -> None:
        """Says more of it; what is None is left out."""

    def fail(self, why: str) -> None:
        """It came to no good end."""


class Tracer(Protocol):
    """Whoever takes the spans."""

    def span(
        self, name: str, kind: str, parent: str | None, attributes: Mapping[str, Attribute | None], leaf: bool
    ) -> AbstractContextManager[Span]:
        """A span from now until the context ends, inside the one that is open in this thread, or in `parent`'s trace.

        Nothing is inside of a `leaf`: it may last while its caller goes on. `kind` is internal, producer, consumer or
        client; `parent` a W3C traceparent.
        """

    def traceparent(self) -> str | None:
        """The open span of this thread, as the header of the W3C carries it."""


class _Untraced:
    def set(self, attributes: Mapping[str, Attribute | None]) -> None:
        pass

    def fail(self, why: str) -> None:
        pass


_UNTRACED: Final[AbstractContextManager[Span]] = nullcontext(_Untraced())
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Has this process's spans taken by `tracer` from now on, None: by nobody."""
    global _tracer
    _tracer = tracer


def is_traced() -> bool:
    return _tracer is not None


def span(
    name: str,
    *,
    kind: str = "internal",
    parent: object = None,
    attributes: Mapping[str, Attribute | None] | None = None,
    leaf: bool = False,
) -> AbstractContextManager[Span]:
    """A span of this process's tracer. A `parent` that is no text, as any message may bring it, counts for none."""
    if _tracer is None:
        return _UNTRACED
    return _tracer.span(name, kind, parent if isinstance(parent, str) else None, attributes or {}, leaf)


def traceparent() -> str | None:
    """What a message carries so that its work is in the trace of whoever sends it; None: nobody traces."""
    return None if _tracer is None else _tracer.traceparent()


@dataclass(frozen=True, slots=True)
class ModelCallSpan:
    """A call to a model while it lasts."""

    span: Span

    def used(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        cost_micros: int | None = None,
        flag: str | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
    ) -> None:
        """What the provider says it used; cost in micro-USD, and why it counts as more, under names of our own."""
        self.span.set(
            {
                "gen_ai.usage.input_tokens": input_tokens,
                "gen_ai.usage.output_tokens": output_tokens,
                "gen_ai.usage.cache_read.input_tokens": cached_tokens,
                "gen_ai.response.model": response_model,
                "gen_ai.response.id": response_id,
                "acp.cost_micros": cost_micros,
                "acp.flag": flag,
            }
        )

    def decided(self, decision: str, rule: str | None = None, *, max_tokens: int | None = None) -> None:
        """What governance said to the call: allowed, with an answer of so many tokens, or refused by a rule."""
        self.span.set({"acp.decision": decision, "acp.rule": rule, "gen_ai.request.max_tokens": max_tokens})

    def fail(self, why: str) -> None:
        self.span.fail(why)


@contextmanager
def model_call(
    model: str, *, operation: str = "chat", provider: str | None = None, max_tokens: int | None = None
) -> Iterator[ModelCallSpan]:
    """The span of one model call, under the GenAI semantic names."""
    attributes: dict[str, Attribute | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
    }
    with span(f"{operation} {model}", kind="client", attributes=attributes, leaf=True) as opened:
        yield ModelCallSpan(opened)
