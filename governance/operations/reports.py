"""What people look at: actions, tickets, events, budgets and workers as they are now. Nothing here changes anything."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from governance.core.actions import State
from governance.core.approvals import Vote, parse_chain, parse_votes
from governance.core.events import StoredEvent
from governance.core.ledger import Unit
from governance.core.principals import Principal
from governance.core.tickets import TicketState
from governance.errors import NotFound
from governance.operations.context import Governance
from governance.store import action_reports, events, ledger, model_calls, tickets
from governance.store import sessions as store_sessions

_Row = TypeVar("_Row")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ActionLine:
    """An action in a list."""

    id: str
    name: str
    state: State
    attempt: int
    session_id: str
    stream: str
    risk: str
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    resource: str | None
    cost_micros: int
    tokens: int
    rule: str | None
    reason: str | None
    error_type: str | None
    error: str | None
    created_us: int


@dataclass(frozen=True, slots=True)
class ActionDetail(ActionLine):
    """An action by itself."""

    command_id: str
    correlation_id: str
    digest: str
    idempotent: bool
    message: str
    guidance: str | None
    suggest: str | None
    result: str | None
    lease_worker: str | None
    lease_child: str | None
    not_before_us: int | None
    expires_us: int | None
    published_us: int | None
    publish_count: int
    started_us: int | None
    finished_us: int | None
    delivered_us: int | None


@dataclass(frozen=True, slots=True)
class TicketLine:
    """A ticket with its action, as a list shows it; `governance.operations.brief` has the rest."""

    id: str
    action_id: str
    action_name: str
    action_state: State
    state: TicketState
    level: int  # from 0; of `levels`
    levels: int
    roles: tuple[str, ...]  # who is asked now; empty: any approver
    votes: tuple[Vote, ...]
    wanted: int  # approvals, by different people
    rule: str
    reason: str
    requested_us: int
    due_us: int
    expires_us: int
    decided_us: int | None
    decided_by: str | None
    decision_reason: str | None
    session_id: str
    risk: str
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    resource: str | None
    cost_micros: int
    tokens: int
    correlation_id: str
    digest: str
    message: str

    @property
    def missing(self) -> int:
        """Approvals that are still wanted."""
        return max(self.wanted - len(self.votes), 0)


@dataclass(frozen=True, slots=True)
class Spent:
    """What an action has posted on one account."""

    account_id: str
    unit: Unit
    posted: int


@dataclass(frozen=True, slots=True)
class ModelCallLine:
    """A call of a model: tokens, micro-USD, and the prices of a million tokens in micro-USD (None: nobody knew any)."""

    id: str
    attempt: int
    model: str
    tier: str | None
    override_id: str | None
    tokens_input: int
    tokens_cached: int
    tokens_output: int
    cost_micros: int
    price_input: int | None
    price_cached: int | None
    price_output: int | None
    price_table: str | None
    flag: str | None
    at_us: int


@dataclass(frozen=True, slots=True)
class ActionReport:
    """An action, its latest ticket, what it spent, the models it called and everything that happened to it."""

    action: ActionDetail
    ticket: TicketLine | None
    spent: tuple[Spent, ...]
    model_calls: tuple[ModelCallLine, ...]
    history: tuple[StoredEvent, ...]


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget in one window; `limit_amount` and `left` are None when it is unlimited, `left` is negative beyond it."""

    id: str
    scope: str
    scope_id: str
    unit: Unit
    limit_amount: int | None
    posted: int
    held: int
    window_start_us: int
    window_end_us: int

    @property
    def left(self) -> int | None:
        return None if self.limit_amount is None else self.limit_amount - self.posted - self.held


def list_actions(gov: Governance, *, state: State | None, session_id: str | None, limit: int) -> list[ActionLine]:
    """The newest first."""
    found = action_reports.listing(gov.store, state=state, session_id=session_id, limit=limit)
    return [_taken(ActionLine, row, state=State(row["state"])) for row in found]


def show_action(gov: Governance, action_id: str) -> ActionReport:
    """Everything about one action. Raises NotFound."""
    row = action_reports.whole(gov.store, action_id)
    if row is None:
        raise NotFound("action", action_id, "acp actions list shows what there is")
    ticket = tickets.find(gov.store, action_id)
    spent = action_reports.spent(gov.store, action_id)
    return ActionReport(
        action=_taken(ActionDetail, row, state=State(row["state"])),
        ticket=_ticket(ticket) if ticket is not None else None,
        spent=tuple(Spent(account, Unit(account.rpartition(":")[2]), spent[account]) for account in sorted(spent)),
        model_calls=tuple(_taken(ModelCallLine, call) for call in model_calls.of_action(gov.store, action_id)),
        history=tuple(events.of_action(gov.store, action_id)),
    )


def list_tickets(gov: Governance, *, state: TicketState | None, limit: int) -> list[TicketLine]:
    """The one that expires first on top."""
    return [_ticket(row) for row in tickets.listing(gov.store, state=state, limit=limit)]


def list_decidable(gov: Governance, *, role: str, limit: int) -> list[TicketLine]:
    """The requests that a holder of `approver:<role>` may decide now, the one that expires first on top."""
    holder = Principal("", frozenset({f"approver:{role}"}))
    now_us = gov.clock.now_us()
    found: list[TicketLine] = []
    after: tuple[int, str] | None = None
    while len(found) < limit:
        page = tickets.listing(gov.store, state=TicketState.PENDING, limit=_PAGE, after=after)
        lines = [_ticket(row) for row in page]
        found += [line for line in lines if line.expires_us > now_us and holder.may_approve(line.roles)]
        if len(page) < _PAGE:
            break
        after = (lines[-1].expires_us, lines[-1].id)
    return found[:limit]


def find_ticket(gov: Governance, ref: str) -> TicketLine:
    """The ticket with this id, else the latest one of the action with this id. Raises NotFound."""
    row = tickets.find(gov.store, ref)
    if row is None:
        raise NotFound("ticket", ref, "acp approvals list shows the open ones")
    return _ticket(row)


def latest_events(gov: Governance, count: int) -> list[StoredEvent]:
    """The last `count` events in the order in which they were written, sealed or not."""
    return events.latest(gov.store, count)


def events_after(gov: Governance, event_id: int, limit: int) -> list[StoredEvent]:
    """Events written after `event_id`. One that was numbered earlier may still be committed later."""
    return events.after_id(gov.store, event_id, limit)


def list_budgets(gov: Governance, *, session_id: str | None, budget_id: str | None = None) -> list[BudgetLine]:
    """The accounts of the windows that are open now, or those of one session, or of one budget by identity.

    Raises NotFound.
    """
    if session_id is not None and store_sessions.find(gov.store, session_id) is None:
        raise NotFound("session", session_id, "acp budget show lists the open ones")
    found = ledger.listing(gov.store, session_id=session_id, budget_id=budget_id, now_us=gov.clock.now_us())
    return [_taken(BudgetLine, row, unit=Unit(row["unit"])) for row in found]


def _ticket(row: Mapping[Any, Any]) -> TicketLine:
    chain = parse_chain(row["chain"])
    return _taken(
        TicketLine,
        row,
        state=TicketState(row["state"]),
        action_state=State(row["action_state"]),
        levels=len(chain.levels),
        roles=chain.roles_at(row["level"]),
        votes=parse_votes(row["votes"]),
        wanted=chain.approvals,
    )


def _taken(kind: type[_Row], row: Mapping[Any, Any], **typed: object) -> _Row:
    """`kind` from the columns of `row` that it names; `typed` fields are given, or have their type."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: typed[name] if name in typed else row[name] for name in names})
