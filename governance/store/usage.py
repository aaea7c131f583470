"""Usage as the ledger has it: entries of session accounts by what their actions say, and accounts with a limit.

What was used outside of actions is on no session's account, and on a budget's only where one has a limit of it: it is
taken from the trail.
By model it is what the attempts' calls were of; what no call accounts for is of the model that the action declares.
"""

from collections.abc import Sequence
from typing import Any, Final

from governance.core.events import USAGE_RECORDED
from governance.core.ledger import Unit
from governance.core.usage import By
from governance.core.windows import DAY_US
from governance.store.accounts import ACCOUNTS
from governance.store.engine import Reader, Store
from governance.store.events import payload_field

_COLUMNS: Final = {
    By.USER: 'a."user"',
    By.TEAM: "a.team",
    By.ORG: "a.org",
    By.AGENT: "a.agent_id",
    By.STREAM: "a.stream",
}
# An entry may be posted long after the window it was held in: by recovery, when the fleet was away. Accounts are found
# by their windows' ends, so for so long after it.
_LATE_US: Final = 31 * DAY_US


_POSTED: Final = f"""sum(CASE WHEN c.unit = '{Unit.ACTIONS}' THEN e.posted_delta ELSE 0 END) AS actions,
        sum(CASE WHEN c.unit = '{Unit.TOKENS}' THEN e.posted_delta ELSE 0 END) AS tokens,
        sum(CASE WHEN c.unit = '{Unit.COST}' THEN e.posted_delta ELSE 0 END) AS micros
    FROM accounts c JOIN entries e ON e.account_id = c.id JOIN actions a ON a.id = e.action_id
    WHERE c.scope = 'session' AND c.window_end_us > :late AND c.window_start_us < :until
        AND e.at_us >= :start AND e.at_us < :until AND e.posted_delta > 0
        AND c.scope_id NOT IN (SELECT session_id FROM drills)"""
#: `parts` (stream, action_id, attempt, model, actions, tokens, micros): what `attempts`, of the same columns and the
#: models that their actions declare, have posted, by the model that used it. An attempt counts for each of its models.
PARTS: Final = """calls AS (
        SELECT t.stream, t.action_id, t.attempt, m.model, t.actions, sum(m.tokens_input + m.tokens_output) AS tokens,
            sum(m.cost_micros) AS micros
        FROM attempts t JOIN model_calls m ON m.action_id = t.action_id AND m.attempt = t.attempt
        GROUP BY t.stream, t.action_id, t.attempt, m.model, t.actions),
    explained AS (
        SELECT action_id, attempt, sum(tokens) AS tokens, sum(micros) AS micros FROM calls GROUP BY 1, 2),
    remaining AS (
        SELECT t.stream, t.action_id, t.attempt, t.model, t.actions,
            CASE WHEN t.tokens > coalesce(x.tokens, 0) THEN t.tokens - coalesce(x.tokens, 0) ELSE 0 END AS tokens,
            CASE WHEN t.micros > coalesce(x.micros, 0) THEN t.micros - coalesce(x.micros, 0) ELSE 0 END AS micros
        FROM attempts t LEFT JOIN explained x ON x.action_id = t.action_id AND x.attempt = t.attempt
        WHERE x.action_id IS NULL OR t.tokens > x.tokens OR t.micros > x.micros),
    parts AS (
        SELECT stream, action_id, attempt, model, max(actions) AS actions, sum(tokens) AS tokens, sum(micros) AS micros
        FROM (SELECT * FROM calls UNION ALL SELECT * FROM remaining) AS every
        GROUP BY stream, action_id, attempt, model)"""


def posted(store: Store, by: By, from_us: int, until_us: int) -> Sequence[Sequence[Any]]:
    """(name, actions, tokens, micro-USD) in [from, until): what was posted on sessions' accounts, where the same money
    on other scopes is not spent again, and what was recorded outside of actions. What drills do is left out."""
    if by is By.MODEL:
        inside = f"""WITH attempts AS (
                SELECT a.stream, e.action_id, e.attempt, a.model, {_POSTED} GROUP BY 1, 2, 3, 4),
            {PARTS}
            SELECT model AS name, actions, tokens, micros FROM parts"""
    else:
        inside = f"SELECT {_COLUMNS[by]} AS name, {_POSTED} GROUP BY 1"
    return store.read(
        f"""SELECT name, sum(actions), sum(tokens), sum(micros)
            FROM (SELECT * FROM ({inside}) AS inside UNION ALL {_outside(store, by)}) AS every
            GROUP BY name ORDER BY 4 DESC, 3 DESC, 2 DESC, 1""",
        {"start": from_us, "until": until_us, "late": from_us - _LATE_US},
    )


def _outside(store: Store, by: By) -> str:
    """(name, actions, tokens, micros) of each usage outside of actions.

    Its event is of no action, as few are: they are found by that (ix_events_action).
    """
    field = payload_field(store)
    tokens, micros = (f"CAST({field}'{unit}' AS bigint)" for unit in (Unit.TOKENS, Unit.COST))
    return f"""SELECT {field}'{by}' AS name, 0 AS actions, {tokens} AS tokens, {micros} AS micros FROM events e
        WHERE e.kind = '{USAGE_RECORDED}' AND e.action_id IS NULL AND e.at_us >= :start AND e.at_us < :until
            AND {tokens} + {micros} > 0"""


def limited(reader: Reader, from_us: int, until_us: int) -> Sequence[Sequence[Any]]:
    """(id, scope, unit, window start, limit, posted, held, window end) of accounts with a limit whose window touches
    the span."""
    return reader.read(
        f"""SELECT id, scope, unit, window_start_us, limit_amount, posted, held, window_end_us FROM {ACCOUNTS} c
            WHERE limit_amount IS NOT NULL AND window_end_us > :start AND window_start_us < :until
                AND scope_id NOT IN (SELECT session_id FROM drills)
            ORDER BY window_start_us, id""",
        {"start": from_us, "until": until_us},
    )
