"""A change on PostgreSQL: one statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Connection

from governance.core.changes import Change
from governance.core.ledger import Closing, Hold, row_id
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.accounts import LOCK_ORDER, level_in
from governance.store.engine import Store, rows
from governance.store.parameters import (
    ECHO_PARAMETERS,
    EVENT_COLUMNS,
    EVENT_PARAMETERS,
    GRANT_LASTS,
    MOVE_TICKET,
    RECORDED_COLUMNS,
    TICKET_COLUMNS,
    TICKET_PARAMETERS,
    USE_GRANT,
    change_values,
    recorded_sql,
)

# Whether an admission waited for somebody's lock, as the server saw it: a client may only have waited for a processor.
# Where nobody waits, one commit is faster.
_QUEUED = ", clock_timestamp() - statement_timestamp() > interval '5 ms'"
# Of many writers a few find the account free: it is still a hot one.
_QUEUEING_WRITES = 8
_NOT_YET_DURABLE = ", set_config('synchronous_commit', 'off', true)"
# Of each account one stripe with room. A row that lost its room in this moment stays locked although it is passed over:
# so whoever takes what is free waits for nothing, and whoever waits goes by number, as everybody does who waits.
_STRIPE = """stripe_{n} AS MATERIALIZED (SELECT a.account, CAST(:w_amount_{n} AS bigint) AS amount, a.id, a.stripe
    FROM fitting, accounts a WHERE a.account = :w_id_{n}
        AND (a.limit_amount IS NULL OR a.posted + a.held + :w_amount_{n} <= a.limit_amount) {which}
    LIMIT 1)"""
_TOTAL = """(SELECT count(limit_amount) = 0 OR sum(limit_amount) - sum(posted + held) >= :w_amount_{n}
    FROM accounts WHERE account = :w_id_{n})"""
# Every connection begins at a stripe of its own.
_FREE = "ORDER BY (a.stripe + pg_backend_pid()) % a.stripes FOR NO KEY UPDATE OF a SKIP LOCKED"
_AWAITED = "AND a.stripe >= pg_backend_pid() % a.stripes ORDER BY a.stripe FOR NO KEY UPDATE OF a"
_RECORDED = "".join(f', "{column}"' for column in RECORDED_COLUMNS)
_AS_RECORDED = f"AND {recorded_sql('IS NOT DISTINCT FROM')}"
# All stripes of an account on one of which more is posted than was held: their shares will be moved.
_SETTLING = "WHERE a.id = ANY(CAST(:c_ids AS text[])) OR a.account = ANY(CAST(:c_levelled AS text[]))"


@dataclass(frozen=True, slots=True)
class Taken:
    """Everything is written; each hold names the stripe that was taken."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Short:
    """Nothing is written: of these accounts no stripe had room, and everything else was as expected."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing is written: the world is not as the change expected."""


Written: TypeAlias = Taken | Short | Moved


def apply_wide(store: Store, change: Change, *, awaited: bool = False) -> Written:
    """In autocommit. Where writers queue for a hot row, its lock is not held while the disk is waited for.

    `awaited`: all stripes were locked when it was tried before, so it waits for one.
    """
    if _over_held(change):
        with store.transaction() as connection:
            return apply_wide_in(connection, change)
    # Nobody queues for a stripe: a second commit would only cost.
    hot = any(hold.stripes == 1 for hold in change.holds) or any(c.stripes == 1 for c in change.closings)
    release_early = store.queueing > 0 and hot
    sql, values = _wide(change, awaited=awaited)
    row = (store.run_then_flush(sql + _NOT_YET_DURABLE, values) if release_early else store.run(sql, values))[0]
    waited = bool(change.holds) and bool(row[1])
    store.queueing = _QUEUEING_WRITES if waited else max(store.queueing - 1, 0)
    return _written(change, row)


def apply_wide_in(connection: Connection, change: Change) -> Written:
    """The same in the caller's transaction, which must be rolled back unless it is Taken."""
    sql, values = _wide(change)
    written = _written(change, rows(connection, sql, values)[0])
    if isinstance(written, Taken):
        for account_id in sorted({closing.account_id for closing in _over_held(change)}):
            level_in(connection, account_id)
    return written


def _over_held(change: Change) -> list[Closing]:
    """What is posted beyond its hold on a stripe: the room that it takes may be in other stripes' shares."""
    return [closing for closing in change.closings if closing.stripes > 1 and closing.exceeds]


def _written(change: Change, row: Sequence[Any]) -> Written:
    striped = _striped(change)
    if not striped:
        return Taken(change.holds) if row[0] else Moved()
    moved, _, fits, *stripes = row[: 3 + len(striped)]
    taken = {hold.account_id: stripe for hold, stripe in zip(striped, stripes, strict=True) if stripe is not None}
    if moved:
        return Taken(tuple(replace(hold, stripe=taken.get(hold.account_id, 0)) for hold in change.holds))
    short = tuple(hold for hold in striped if hold.account_id not in taken)
    return Short(short) if fits and short else Moved()


def _striped(change: Change) -> list[Hold]:
    """The holds on striped accounts, in the order in which these are locked (LOCK_ORDER)."""
    return sorted((hold for hold in change.holds if hold.stripes > 1), key=lambda hold: hold.account_id)


def _wide(change: Change, *, awaited: bool = False) -> tuple[str, Mapping[str, Any]]:
    """The statement for `change`, and its values."""
    kind = {OpenTicket: "open", MoveTicket: "move"}.get(type(change.ticket), "")
    plain = [hold for hold in change.holds if hold.stripes == 1]
    striped = _striped(change)
    over_held = bool(_over_held(change))
    sql = _wide_sql(
        tuple(change.columns),
        kind,
        (bool(plain), len(striped)),
        (bool(change.closings), over_held),
        awaited,
        change.grant is not None,
        change.epoch is not None,
        change.echo is not None,
        change.recorded is not None,
    )
    values = change_values(change)
    if change.holds:
        values["h_kind"] = str(change.hold_kind)
    if plain:
        values |= {"h_ids": [hold.account_id for hold in plain], "h_amounts": [hold.amount for hold in plain]}
    for number, hold in enumerate(striped):
        values |= {f"w_id_{number}": hold.account_id, f"w_amount_{number}": hold.amount}
    if change.closings:
        values |= {
            "c_ids": [row_id(closing.account_id, closing.stripe) for closing in change.closings],
            "c_held": [closing.held_delta for closing in change.closings],
            "c_posted": [closing.posted_delta for closing in change.closings],
            "c_kinds": [str(closing.kind) for closing in change.closings],
            "c_flags": [closing.flag and str(closing.flag) for closing in change.closings],
        }
    if over_held:
        values["c_levelled"] = [closing.account_id for closing in _over_held(change)]
    return sql, values


@lru_cache(maxsize=64)
def _wide_sql(
    columns: tuple[str, ...],
    ticket: str,
    holds: tuple[bool, int],
    closings: tuple[bool, bool],
    awaited: bool,
    grant: bool,
    epoch: bool,
    echo: bool,
    recorded: bool,
) -> str:
    """The statement for one shape of change. Every write selects FROM passed, so either all happen or none.

    `holds`: whether on plain accounts, on how many striped ones. `closings`: any, and any that posts more than was
    held on a stripe.
    """
    (plain, striped), (closing, over_held) = holds, closings
    parts = [
        # By its id and nothing else: a plan made while a database is new would take the index of sessions, and keep it.
        f"""target AS MATERIALIZED (SELECT id, session_id, state, attempt{_RECORDED if recorded else ""} FROM actions
            WHERE id = :g_id FOR UPDATE)""",
        f"""found AS MATERIALIZED (SELECT id FROM target
            WHERE session_id = :g_session AND state = :g_state AND attempt = :g_attempt
            {_AS_RECORDED if recorded else ""})""",
    ]
    passed, before = ["EXISTS (SELECT 1 FROM found)"], ["found"]
    if ticket == "move":
        parts.append(
            """asked AS MATERIALIZED (SELECT t.id FROM tickets t, found
                WHERE t.id = :t_id AND t.state = :t_before AND t.step = :t_step FOR UPDATE OF t)"""
        )
        passed.append("EXISTS (SELECT 1 FROM asked)")
        before.append("asked")
    if grant:
        parts.append(
            f"""granted AS MATERIALIZED (SELECT g.id FROM grants g, {", ".join(before)}
                WHERE g.id = :gr_id AND {GRANT_LASTS} FOR UPDATE OF g)"""
        )
        passed.append("EXISTS (SELECT 1 FROM granted)")
        before.append("granted")
    if plain:
        parts.append(
            f"""locked AS MATERIALIZED (SELECT a.id, a.limit_amount, a.posted, a.held, wanted.amount
                FROM {", ".join(before)}, accounts a
                JOIN unnest(CAST(:h_ids AS text[]), CAST(:h_amounts AS bigint[])) AS wanted(id, amount)
                    ON wanted.id = a.id
                ORDER BY {LOCK_ORDER} FOR NO KEY UPDATE OF a)"""
        )
        passed.append(
            """(SELECT count(*) = cardinality(CAST(:h_ids AS text[])) AND bool_and(
                limit_amount IS NULL OR posted + held + amount <= limit_amount) FROM locked)"""
        )
    if striped:
        # Nothing that is waited for comes after a stripe: it is taken only once everything else is locked and fits.
        # A stripe may have room where its account has none; whoever has read the account knows.
        fits = [*passed, *(_TOTAL.format(n=number) for number in range(striped if recorded else 0))]
        parts.append(f"fitting AS MATERIALIZED (SELECT 1 AS yes WHERE {' AND '.join(fits)})")
        # One account after the other, and not as an array: for that, PostgreSQL would plan anew at every execution.
        parts += [_STRIPE.format(n=number, which=_AWAITED if awaited else _FREE) for number in range(striped)]
        found = " UNION ALL ".join(
            f"SELECT account, amount, id, stripe FROM stripe_{number}" for number in range(striped)
        )
        parts.append(f"stripes AS MATERIALIZED ({found})")
        passed.append(f"(SELECT count(*) FROM stripes) = {striped}")
    if epoch:
        passed.append("switch_epoch() = :g_epoch")
    parts.append(f"passed AS MATERIALIZED (SELECT 1 AS yes WHERE {' AND '.join(passed)})")
    if ticket == "move":
        parts.append(f"ticket AS ({MOVE_TICKET} AND EXISTS (SELECT 1 FROM passed))")
    if grant:
        parts.append(f"grant_use AS ({USE_GRANT} AND EXISTS (SELECT 1 FROM passed))")
    if ticket == "open":
        parts.append(f"ticket AS (INSERT INTO tickets ({TICKET_COLUMNS}) SELECT {TICKET_PARAMETERS} FROM passed)")
    if plain or striped:
        taken = {(True, False): "locked", (False, True): "stripes"}.get((plain, bool(striped)))
        if taken is None:
            taken = "taken"
            parts.append("taken AS (SELECT id, amount FROM locked UNION ALL SELECT id, amount FROM stripes)")
        parts.append(
            f"""held AS (UPDATE accounts a SET held = a.held + {taken}.amount
                FROM {taken}, passed WHERE a.id = {taken}.id)"""
        )
        parts.append(
            f"""hold_entries AS (INSERT INTO entries
                (account_id, action_id, attempt, kind, held_delta, posted_delta, at_us)
                SELECT {taken}.id, :g_id, CAST(:e_attempt AS integer), CAST(:h_kind AS text), {taken}.amount, 0,
                    CAST(:e_at AS bigint) FROM {taken}, passed)"""
        )
    sets = ", ".join(f'"{column}" = :s_{column}' for column in columns)
    parts.append(f"moved AS (UPDATE actions SET {sets} FROM passed WHERE actions.id = :g_id RETURNING 1)")
    told = " RETURNING 1" if echo else ""
    parts.append(f"event AS (INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} FROM passed{told})")
    if echo:
        # From what the event was written for: it comes after it in the trail.
        parts.append(f"echo AS (INSERT INTO events ({EVENT_COLUMNS}) SELECT {ECHO_PARAMETERS} FROM event)")
    if closing:
        parts += [
            """closing AS MATERIALIZED (SELECT c.* FROM found, unnest(
                CAST(:c_ids AS text[]), CAST(:c_held AS bigint[]), CAST(:c_posted AS bigint[]),
                CAST(:c_kinds AS text[]), CAST(:c_flags AS text[])) AS c(id, held, posted, kind, flag))""",
            """closing_entries AS (INSERT INTO entries
                (account_id, action_id, attempt, kind, held_delta, posted_delta, flag, at_us)
                SELECT closing.id, :g_id, CAST(:e_attempt AS integer), closing.kind, closing.held, closing.posted,
                    closing.flag, CAST(:e_at AS bigint) FROM closing, passed)""",
            # Last, because a hot account is locked from here to the end of the commit and nothing else waits on it.
            f"""settling AS MATERIALIZED (SELECT a.id, closing.held, closing.posted
                FROM accounts a {"LEFT JOIN" if over_held else "JOIN"} closing ON closing.id = a.id
                {_SETTLING if over_held else ""} ORDER BY {LOCK_ORDER} FOR NO KEY UPDATE OF a)""",
            """settled AS (UPDATE accounts a SET held = a.held + settling.held, posted = a.posted + settling.posted
                FROM settling, passed WHERE a.id = settling.id AND settling.held IS NOT NULL)""",
        ]
    answer = "count(*)"
    if plain or striped:
        answer += _QUEUED
    if striped:
        taken_of = "".join(f", (SELECT stripe FROM stripe_{number})" for number in range(striped))
        answer += f", (SELECT count(*) FROM fitting){taken_of}"
    return f"WITH {', '.join(parts)} SELECT {answer} FROM moved"
