"""Sessions: control windows of a stream, named by stream and window start so that two openers open one."""

from dataclasses import dataclass

from governance.core.events import Event
from governance.core.instants import iso
from governance.core.ledger import Account, Unit
from governance.core.plans import Limits
from governance.core.windows import Window


@dataclass(frozen=True, slots=True)
class Session:
    """One control window: the stream, its aligned bounds and the policy version pinned to it."""

    id: str
    stream: str
    window: Window
    policy_hash: str


def session_id(stream: str, window: Window) -> str:
    return f"{stream}@{iso(window.start_us)}"


def account_id(session: str, unit: Unit) -> str:
    return f"session:{session}:{unit}"


def account_ids(session: str) -> tuple[str, ...]:
    """The session's accounts in lock order."""
    return tuple(sorted(account_id(session, unit) for unit in Unit))


def accounts(session: Session, limits: Limits, stripes: int = 1) -> tuple[Account, ...]:
    """The accounts that are opened with a session, empty."""
    limit = {Unit.COST: limits.cost_micros, Unit.ACTIONS: limits.actions, Unit.TOKENS: limits.tokens}
    end_us = session.window.end_us
    return tuple(Account(account_id(session.id, unit), unit, limit[unit], 0, 0, end_us, stripes) for unit in Unit)


def opening(session: Session, limits: Limits, *, actor: str, at_us: int, **why: object) -> Event:
    """The first event of a session's trail: its bounds, its policy and what it may use."""
    return Event(
        session_id=session.id,
        kind="session.opened",
        actor=actor,
        at_us=at_us,
        payload={
            "stream": session.stream,
            "policy": session.policy_hash,
            "window_start_us": session.window.start_us,
            "window_end_us": session.window.end_us,
            "limits": {"cost_micros": limits.cost_micros, "actions": limits.actions, "tokens": limits.tokens},
            **why,
        },
    )
