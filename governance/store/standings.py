"""Reading a given set of actions, however large, with what they spent and what of them waits for a person."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import RowMapping, Select, func, select, tuple_

from governance.core.actions import State
from governance.core.ledger import Unit
from governance.core.tickets import TicketState
from governance.store.engine import Store
from governance.store.schema.decisions import tickets
from governance.store.schema.ledger import accounts, entries
from governance.store.schema.work import actions

# Databases limit the parameters of a statement; SQLite's limit was 999 for long.
_BATCH = 500


def of(store: Store, action_ids: Iterable[str]) -> Iterator[RowMapping]:
    """The actions with these ids, as far as there are any."""
    for batch in _batches(action_ids):
        with store.statement() as connection:
            yield from connection.execute(select(actions).where(actions.c.id.in_(batch))).mappings().all()


def undelivered(store: Store, prefix: str, states: Sequence[State], limit: int) -> list[RowMapping]:
    """Undelivered actions in these states whose command_id begins with `prefix`, the oldest first."""
    query = (
        select(actions)
        .where(actions.c.delivered_us.is_(None), actions.c.state.in_(states))
        .where(actions.c.command_id.startswith(prefix, autoescape=True))
        .order_by(actions.c.created_us, actions.c.id)
        .limit(limit)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def made_by(store: Store, agent_id: str, since_us: int, after_id: str, limit: int) -> list[RowMapping]:
    """Actions of an agent from then on, the oldest first; of that very instant those with an id after `after_id`."""
    query = (
        select(actions)
        .where(actions.c.agent_id == agent_id)
        .where(tuple_(actions.c.created_us, actions.c.id) > (since_us, after_id))
        .order_by(actions.c.created_us, actions.c.id)
        .limit(limit)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def spent_micros(store: Store, action_ids: Iterable[str]) -> int:
    """Of the sessions' accounts only: an action posts the same amount on the accounts of every scope."""
    query = (
        select(func.coalesce(func.sum(entries.c.posted_delta), 0))
        .join_from(entries, accounts, accounts.c.id == entries.c.account_id)
        .where(accounts.c.scope == "session", accounts.c.unit == Unit.COST)
    )
    spent = 0
    for batch in _batches(action_ids):
        with store.statement() as connection:
            spent += int(connection.execute(query.where(entries.c.action_id.in_(batch))).scalar_one())
    return spent


def waiting(store: Store, action_ids: Iterable[str]) -> Iterator[Sequence[Any]]:
    """(ticket, action, name, resource, rule, expiry) of these actions' open tickets, by expiry."""
    query: Select[Any] = select(
        tickets.c.id,
        tickets.c.action_id,
        actions.c.name,
        actions.c.resource,
        tickets.c.rule,
        tickets.c.expires_us,
    ).join_from(tickets, actions, actions.c.ticket_id == tickets.c.id)
    for batch in _batches(action_ids):
        pending = query.where(tickets.c.state == TicketState.PENDING, actions.c.id.in_(batch))
        with store.statement() as connection:
            yield from connection.execute(pending.order_by(tickets.c.expires_us, tickets.c.id))


def _batches(action_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(action_ids)
    while batch := tuple(islice(left, _BATCH)):
        yield batch
