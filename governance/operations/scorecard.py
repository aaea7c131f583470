"""How a set of actions is doing, and what came of it: what a run of the fleet shows while it works and at its end."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import RowMapping, func, select

from governance.core.actions import TERMINAL, State
from governance.core.ledger import Unit
from governance.core.tickets import TicketState
from governance.operations.context import Governance
from governance.operations.reports import BudgetLine, list_budgets
from governance.store.schema import accounts, actions, entries, tickets

# Databases limit the parameters of a statement; SQLite's limit was 999 for long.
_BATCH = 500
_LIVE = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an action stands."""

    id: str
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
    return [_standing(row) for row in _rows(gov, action_ids)]


def open_commands(gov: Governance, prefix: str, limit: int) -> list[Standing]:
    """Live actions whose command_id begins with `prefix`, the oldest first: what an earlier run left to be done."""
    query = (
        select(actions)
        .where(actions.c.delivered_us.is_(None), actions.c.state.in_([*_LIVE, *TERMINAL]))
        .where(actions.c.command_id.startswith(prefix, autoescape=True))
        .order_by(actions.c.created_us, actions.c.id)
        .limit(limit)
    )
    with gov.store.statement() as connection:
        return [_standing(row) for row in connection.execute(query).mappings()]


def score(gov: Governance, action_ids: Sequence[str]) -> Scorecard:
    """What came of these actions so far."""
    states: Counter[str] = Counter()
    denials: Counter[str] = Counter()
    sessions: set[str] = set()
    durations_us: list[int] = []
    for row in _rows(gov, action_ids):
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
        spent_micros=_spent_micros(gov, action_ids),
        budgets=tuple(line for name in sorted(sessions) for line in list_budgets(gov, session_id=name)),
        tickets=tuple(_waiting(gov, action_ids)),
        durations=_durations(gov, durations_us),
    )


def _rows(gov: Governance, action_ids: Iterable[str]) -> Iterator[RowMapping]:
    for batch in _batches(action_ids):
        with gov.store.statement() as connection:
            yield from connection.execute(select(actions).where(actions.c.id.in_(batch))).mappings().all()


def _standing(row: RowMapping) -> Standing:
    return Standing(
        id=row["id"],
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


def _spent_micros(gov: Governance, action_ids: Iterable[str]) -> int:
    """Of the sessions' accounts only: an action posts the same amount on the accounts of every scope."""
    query = (
        select(func.coalesce(func.sum(entries.c.posted_delta), 0))
        .join_from(entries, accounts, accounts.c.id == entries.c.account_id)
        .where(accounts.c.scope == "session", accounts.c.unit == Unit.COST)
    )
    spent = 0
    for batch in _batches(action_ids):
        with gov.store.statement() as connection:
            spent += int(connection.execute(query.where(entries.c.action_id.in_(batch))).scalar_one())
    return spent


def _waiting(gov: Governance, action_ids: Iterable[str]) -> Iterator[Waiting]:
    query = select(
        tickets.c.id,
        tickets.c.action_id,
        actions.c.name.label("action_name"),
        actions.c.resource,
        tickets.c.rule,
        tickets.c.expires_us,
    ).join_from(tickets, actions, actions.c.ticket_id == tickets.c.id)
    for batch in _batches(action_ids):
        pending = query.where(tickets.c.state == TicketState.PENDING, actions.c.id.in_(batch))
        with gov.store.statement() as connection:
            for row in connection.execute(pending.order_by(tickets.c.expires_us, tickets.c.id)):
                yield Waiting(*row)


def _durations(gov: Governance, durations_us: list[int]) -> Durations:
    """Nearest-rank percentiles, in real milliseconds whatever the clock's scale."""
    ordered = sorted(durations_us)

    def at(percent: int) -> float | None:
        if not ordered:
            return None
        rank = max(0, -(-len(ordered) * percent // 100) - 1)
        return round(gov.clock.real_s(ordered[rank]) * 1000, 1)

    return Durations(len(ordered), at(50), at(95))


def _batches(action_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(action_ids)
    while batch := tuple(islice(left, _BATCH)):
        yield batch
