"""The audit trail's values: what one event says, and how sealed events are chained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from governance.core.actions import State
from governance.core.digest import canonical_json, sha256

GENESIS = "0" * 64
# Kinds that are written in one place, and counted and alerted on in others.
TOKEN_BUDGET_EXHAUSTED: Final = "budget.exhausted"
MODEL_ACCESS_DENIED: Final = "model.denied"
BUDGET_THRESHOLD: Final = "budget.threshold"
USAGE_RECORDED: Final = "budget.used"


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of a session. `state` is the action's state after it, None when it changes none."""

    session_id: str
    kind: str
    actor: str
    at_us: int
    action_id: str | None = None
    attempt: int | None = None
    state: State | None = None
    payload: Mapping[str, object] = field(default_factory=dict)

    def payload_json(self) -> str:
        return canonical_json(self.payload)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the store keeps it; `seq` and `hash` are None until it is sealed."""

    id: int
    session_id: str
    kind: str
    actor: str
    at_us: int
    action_id: str | None
    attempt: int | None
    state: State | None
    payload: str
    seq: int | None
    hash: str | None


def chain_hash(previous: str, event: StoredEvent, seq: int) -> str:
    """The hash of `event` as number `seq` of its session, after the event whose hash is `previous`."""
    content = [
        event.session_id,
        seq,
        event.id,
        event.kind,
        event.actor,
        event.at_us,
        event.action_id,
        event.attempt,
        event.state,
        event.payload,
    ]
    return sha256(f"{previous}\n{canonical_json(content)}")
