"""Usage as the ledger has it: entries of session accounts by what their actions say, and accounts with a limit."""

from collections.abc import Sequence
from typing import Any, Final

from governance.core.ledger import Unit
from governance.core.usage import By
from governance.core.windows import DAY_US
from governance.store.engine import Reader

_COLUMNS: Final = {
    By.USER: 'a."user"',
    By.TEAM: "a.team",
    By.ORG: "a.org",
    By.MODEL: "a.model",
    By.AGENT: "a.agent_id",
    By.STREAM: "a.stream",
}
# An entry may be posted long after the window it was held in: by recovery, when the fleet was away. Accounts are found
# by their windows' ends, so for so long after it.
_LATE_US: Final = 31 * DAY_US


def posted(reader: Reader, by: By, from_us: int, until_us: int) -> Sequence[Sequence[Any]]:
    """(name, actions, tokens, micro-USD) posted in [from, until) on sessions' accounts: the same money on other scopes
    is not spent again. What drills do is left out."""
    return reader.read(
        f"""SELECT {_COLUMNS[by]} AS name,
                sum(CASE WHEN c.unit = '{Unit.ACTIONS}' THEN e.posted_delta ELSE 0 END),
                sum(CASE WHEN c.unit = '{Unit.TOKENS}' THEN e.posted_delta ELSE 0 END),
                sum(CASE WHEN c.unit = '{Unit.COST}' THEN e.posted_delta ELSE 0 END)
            FROM accounts c JOIN entries e ON e.account_id = c.id JOIN actions a ON a.id = e.action_id
            WHERE c.scope = 'session' AND c.window_end_us > :late AND c.window_start_us < :until
                AND e.at_us >= :start AND e.at_us < :until AND e.posted_delta > 0
                AND c.scope_id NOT IN (SELECT session_id FROM drills)
            GROUP BY 1 ORDER BY 4 DESC, 3 DESC, 2 DESC, 1""",
        {"start": from_us, "until": until_us, "late": from_us - _LATE_US},
    )


def limited(reader: Reader, from_us: int, until_us: int) -> Sequence[Sequence[Any]]:
    """(id, scope, unit, window start, limit, posted, held) of accounts with a limit whose window touches the span."""
    return reader.read(
        """SELECT id, scope, unit, window_start_us, limit_amount, posted, held FROM accounts
            WHERE limit_amount IS NOT NULL AND window_end_us > :start AND window_start_us < :until
                AND scope_id NOT IN (SELECT session_id FROM drills)
            ORDER BY window_start_us, id""",
        {"start": from_us, "until": until_us},
    )
