"""Reading tickets; they are written by the changes of their actions."""

from sqlalchemy import RowMapping, select

from governance.core.tickets import TicketState
from governance.store.engine import Store
from governance.store.schema import actions, tickets

_WITH_ACTION = select(
    tickets,
    actions.c.name.label("action_name"),
    actions.c.session_id,
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
        .order_by(tickets.c.requested_us.desc())
        .limit(1)
    )
    with store.statement() as connection:
        return connection.execute(query).mappings().first()


def listing(store: Store, *, state: TicketState | None, limit: int) -> list[RowMapping]:
    """Tickets for people, the one that expires first on top."""
    query = _WITH_ACTION.order_by(tickets.c.expires_us, tickets.c.id).limit(limit)
    if state is not None:
        query = query.where(tickets.c.state == state)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def overdue(store: Store, now_us: int, limit: int) -> list[tuple[str, str]]:
    """(ticket, action) ids of pending tickets that nobody answered in time."""
    found = store.read(
        """SELECT id, action_id FROM tickets WHERE state = 'pending' AND expires_us <= :now
            ORDER BY expires_us, id LIMIT :limit""",
        {"now": now_us, "limit": limit},
    )
    return [(str(row[0]), str(row[1])) for row in found]
