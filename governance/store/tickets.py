"""Reading tickets; they are written by the changes of their actions."""

from dataclasses import dataclass

from sqlalchemy import RowMapping, literal_column, select, tuple_

from governance.core.actions import State
from governance.core.changes import ActionRef
from governance.core.tickets import TicketState
from governance.store.engine import Store
from governance.store.schema.decisions import tickets
from governance.store.schema.work import actions

# What is over for a reason of its own; a cancelled ticket ended with its action or its budget's window.
ANSWERED = (TicketState.APPROVED, TicketState.CONSUMED, TicketState.DENIED, TicketState.EXPIRED)
_WITH_ACTION = select(
    tickets,
    actions.c.name.label("action_name"),
    actions.c.session_id,
    actions.c.stream,
    actions.c.model,
    actions.c.agent_id,
    actions.c.user,
    actions.c.team,
    actions.c.org,
    actions.c.risk,
    actions.c.resource,
    actions.c.cost_micros,
    actions.c.tokens,
    actions.c.correlation_id,
    actions.c.message,
    actions.c.state.label("action_state"),
).join_from(tickets, actions, actions.c.id == tickets.c.action_id)


def find(store: Store, ticket_or_action_id: str) -> RowMapping | None:
    """The ticket with this id, else the latest one of the action with this id."""
    query = (
        _WITH_ACTION.where((tickets.c.id == ticket_or_action_id) | (tickets.c.action_id == ticket_or_action_id))
        .order_by(tickets.c.requested_us.desc(), tickets.c.id.desc())
        .limit(1)
    )
    with store.statement() as connection:
        return connection.execute(query).mappings().first()


def listing(
    store: Store, *, state: TicketState | None, limit: int, after: tuple[int, str] | None = None
) -> list[RowMapping]:
    """Tickets for people, the one that expires first on top; a page begins `after` (expires_us, id)."""
    query = _WITH_ACTION.order_by(tickets.c.expires_us, tickets.c.id).limit(limit)
    if after is not None:
        query = query.where(tuple_(tickets.c.expires_us, tickets.c.id) > after)
    if state is not None:
        # Said in full: an index of open ones serves no statement that may ask for others.
        query = query.where(tickets.c.state == literal_column(f"'{state}'"))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


@dataclass(frozen=True, slots=True)
class Overdue:
    """A pending ticket whose level has had its time, and its parked action."""

    id: str
    ref: ActionRef
    rule: str
    chain: str
    level: int
    step: int
    due_us: int
    expires_us: int


def overdue(store: Store, now_us: int, limit: int) -> list[Overdue]:
    """The longest overdue first."""
    found = store.read(
        """SELECT t.id, a.id, a.session_id, a.state, a.attempt,
                t.rule, t.chain, t.level, t.step, t.due_us, t.expires_us
            FROM tickets t JOIN actions a ON a.id = t.action_id
            WHERE t.state = 'pending' AND t.due_us <= :now AND a.state = 'parked'
            ORDER BY t.due_us, t.id LIMIT :limit""",
        {"now": now_us, "limit": limit},
    )
    return [Overdue(row[0], ActionRef(row[1], row[2], State(row[3]), row[4]), *row[5:]) for row in found]


def count_overdue(store: Store, now_us: int) -> int:
    found = store.read("SELECT count(*) FROM tickets WHERE state = 'pending' AND due_us <= :now", {"now": now_us})
    return int(found[0][0])


def decided_like(store: Store, *, rule: str, action_name: str, except_id: str, limit: int) -> list[RowMapping]:
    """Requests of the same rule and action name that were answered, or that nobody answered in time; latest first."""
    query = (
        _WITH_ACTION.where(
            tickets.c.rule == rule,
            actions.c.name == action_name,
            tickets.c.id != except_id,
            tickets.c.state.in_(ANSWERED),
            tickets.c.decided_us.is_not(None),
        )
        .order_by(tickets.c.decided_us.desc(), tickets.c.id)
        .limit(limit)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())
