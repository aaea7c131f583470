"""How a set of actions is doing, and what came of it: what a run of the fleet shows while it works and at its end."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import RowMapping

from governance.core.actions import TERMINAL, State
from governance.operations.context import Governance
from governance.operations.reports import BudgetLine, list_budgets
from governance.store import actions
from governance.store import standings as kept
from governance.store.standings import of as standings_of
from governance.store.standings import spent_micros, undelivered, waiting

_LIVE = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an action stands."""

    id: str
    command_id: str
    name: str
    session_id: str
    state: State
    resource: str | None
    rule: str | None
    reason: str | None
    error: str | None
    created_us: int
    delivered: bool

    @property
    def settled(self) -> bool:
        """Nothing happens to it by itself soon: it ended and Celery was told, or it waits for a person or a time."""
        return self.delivered or self.state not in (*_LIVE, *TERMINAL)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket that nobody has answered yet."""

    id: str
    action_id: str
    action_name: str
    resource: str | None
    rule: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class Durations:
    """Milliseconds from submission to end, of the actions that nobody had to decide about; None without any."""

    count: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What came of some actions. `budgets` are those of the sessions they belong to."""

    states: Mapping[str, int]
    denials: Mapping[str, int]
    sessions: tuple[str, ...]
    spent_micros: int
    budgets: tuple[BudgetLine, ...]
    tickets: tuple[Waiting, ...]
    durations: Durations


def standings(gov: Governance, action_ids: Iterable[str]) -> list[Standing]:
    """Where these actions stand now, each as of one moment; those that do not exist are left out."""
    return [_standing(row) for row in standings_of(gov.store, action_ids)]


def open_commands(gov: Governance, prefix: str, limit: int) -> list[Standing]:
    """Live actions whose command_id begins with `prefix`, the oldest first: what an earlier run left to be done."""
    return [_standing(row) for row in undelivered(gov.store, prefix, [*_LIVE, *TERMINAL], limit)]


def made_by(gov: Governance, agent_id: str, *, after: tuple[int, str], limit: int) -> list[Standing]:
    """What an agent asked for, the oldest first, behind the instant and the action of `after`."""
    return [_standing(row) for row in kept.made_by(gov.store, agent_id, *after, limit)]


def id_of(gov: Governance, command_id: str) -> str | None:
    """The action that a command_id made; None when it made none."""
    found = actions.find_by_command(gov.store, command_id, "")
    return found.ref.id if found is not None else None


def score(gov: Governance, action_ids: Sequence[str]) -> Scorecard:
    """What came of these actions so far."""
    states: Counter[str] = Counter()
    denials: Counter[str] = Counter()
    sessions: set[str] = set()
    durations_us: list[int] = []
    for row in standings_of(gov.store, action_ids):
        states[row["state"]] += 1
        sessions.add(row["session_id"])
        if row["state"] == State.DENIED:
            denials[row["rule"] or "unknown"] += 1
        if row["state"] in (State.SUCCEEDED, State.FAILED) and row["ticket_id"] is None and row["finished_us"]:
            durations_us.append(row["finished_us"] - row["created_us"])
    return Scorecard(
        states=dict(sorted(states.items())),
        denials=dict(sorted(denials.items())),
        sessions=tuple(sorted(sessions)),
        spent_micros=spent_micros(gov.store, action_ids),
        budgets=tuple(line for name in sorted(sessions) for line in list_budgets(gov, session_id=name)),
        tickets=tuple(Waiting(*row) for row in waiting(gov.store, action_ids)),
        durations=_durations(gov, durations_us),
    )


def _standing(row: RowMapping) -> Standing:
    return Standing(
        id=row["id"],
        command_id=row["command_id"],
        name=row["name"],
        session_id=row["session_id"],
        state=State(row["state"]),
        resource=row["resource"],
        rule=row["rule"],
        reason=row["reason"],
        error=row["error"],
        created_us=row["created_us"],
        delivered=row["delivered_us"] is not None,
    )


def _durations(gov: Governance, durations_us: list[int]) -> Durations:
    """Nearest-rank percentiles, in real milliseconds whatever the clock's scale."""
    ordered = sorted(durations_us)

    def at(percent: int) -> float | None:
        if not ordered:
            return None
        rank = max(0, -(-len(ordered) * percent // 100) - 1)
        return round(gov.clock.real_s(ordered[rank]) * 1000, 1)

    return Durations(len(ordered), at(50), at(95))
