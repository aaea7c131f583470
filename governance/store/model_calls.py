"""Calls of models: written with their event while the attempt that made them runs, and read again."""

from sqlalchemy import RowMapping, select

from governance.core.changes import ActionRef
from governance.core.events import Event
from governance.core.model_calls import ModelCall
from governance.store.engine import Store, rows
from governance.store.parameters import EVENT_COLUMNS, EVENT_PARAMETERS, event_values
from governance.store.schema.models import model_calls

_COLUMNS = ", ".join(column.name for column in model_calls.columns)
_PARAMETERS = ", ".join(f":{column.name}" for column in model_calls.columns)


def record(store: Store, ref: ActionRef, call: ModelCall, event: Event) -> bool:
    """The call and its event, both or neither; False when the attempt no longer owns its action."""
    with store.transaction() as connection:
        owned = rows(
            connection,
            f"""INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} FROM actions
                WHERE id = :e_action AND attempt = :e_attempt AND state = 'running' RETURNING id""",
            event_values(event),
        )
        if owned:
            rows(connection, f"INSERT INTO model_calls ({_COLUMNS}) VALUES ({_PARAMETERS})", _values(ref, call))
    return bool(owned)


def of_action(store: Store, action_id: str) -> list[RowMapping]:
    """Every call that an action's attempts have made and finished, in their order."""
    query = select(model_calls).where(model_calls.c.action_id == action_id)
    with store.statement() as connection:
        return list(connection.execute(query.order_by(model_calls.c.at_us, model_calls.c.id)).mappings())


def _values(ref: ActionRef, call: ModelCall) -> dict[str, object]:
    prices = call.prices
    return {
        "id": call.id,
        "action_id": ref.id,
        "attempt": ref.attempt,
        "model": call.access.model,
        "tier": call.access.tier,
        "override_id": None if call.access.override is None else call.access.override.id,
        "tokens_input": call.used.input,
        "tokens_cached": call.used.cached,
        "tokens_output": call.used.output,
        "cost_micros": call.cost_micros,
        "price_input": None if prices is None else prices.input,
        "price_cached": None if prices is None else prices.cached,
        "price_output": None if prices is None else prices.output,
        "price_table": None if prices is None else prices.table,
        "flag": call.flag,
        "at_us": call.at_us,
    }
