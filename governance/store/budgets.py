"""Budgets that people set and raise, and the accounts of budgets: opened by whoever needs them first, and their limits
moved in the same transaction that says why.

Lock order is accounts, then the admissions' lock: an admission has its accounts locked when it asks for the epoch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from governance.core.budgets import SCOPE, Book, Charge, Raise, TokenBudgetConfig, budget_of, parse_budget
from governance.core.events import Event
from governance.core.ledger import Unit
from governance.store.accounts import LOCK_ORDER, level_in, open_in
from governance.store.engine import Reader, Store, rows
from governance.store.epochs import EPOCH, epoch_in, exclude_admissions
from governance.store.events import append_in
from governance.store.schema.ledger import budgets, raises

# Every round is caused by somebody who opened an account of the budget in between.
_ROUNDS_MAX: Final = 100
_OPEN: Final = f"""SELECT a.account, a.scope_id, a.unit, a.limit_amount, coalesce(a.raised, 0) FROM accounts a
    WHERE a.scope = :scope AND a.window_end_us > :now AND a.limit_amount IS NOT NULL
        AND {{where}} ORDER BY {LOCK_ORDER}"""


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """An account of a budget in a window that is not over."""

    id: str
    scope_id: str
    unit: Unit
    limit: int
    raised: int


class _Opened(Exception):
    """Somebody opened an account of the budget meanwhile."""


def open_accounts(store: Store, wanted: Iterable[tuple[Charge, Unit]], book: Book, epoch: int) -> bool:
    """Opens these accounts unless they are open; False, and nothing is opened, when the epoch is another one.

    Their limits are those of the book, so nothing may be set or raised between reading it and this.
    """
    with store.transaction() as connection:
        if epoch_in(store, connection) != epoch:
            return False
        for charge, unit in sorted(wanted, key=lambda one: one[0].account_id(one[1])):
            _open(connection, charge, unit, book.raised(charge, unit))
    return True


def _open(connection: Connection, charge: Charge, unit: Unit, raised: int) -> None:
    account = charge.account(unit, raised)
    if open_in(connection, account, scope=SCOPE, scope_id=charge.scope_id, window=charge.window) and raised:
        rows(connection, "UPDATE accounts SET raised = :raised WHERE id = :id", {"id": account.id, "raised": raised})


def set_budget(
    store: Store,
    budget_id: str,
    budget: TokenBudgetConfig | None,
    limits: Mapping[Unit, int],
    *,
    reason: str,
    by: str,
    event: Event,
    claim: Callable[[Connection], bool],
) -> bool:
    """Sets a budget, or takes back what was set (None), with `event`; its open accounts get the limits, raises on top.

    False when the command was given before: `claim` says so.
    """

    def write(connection: Connection, accounts: Sequence[OpenAccount]) -> None:
        rows(
            connection,
            f"""INSERT INTO budgets (id, config, reason, set_us, set_by, epoch)
                VALUES (:id, :config, :reason, :now, :by, {EPOCH} + 1) ON CONFLICT (id) DO UPDATE SET
                config = excluded.config, reason = excluded.reason, set_us = excluded.set_us,
                set_by = excluded.set_by, epoch = excluded.epoch""",
            {
                "id": budget_id,
                "config": budget.text if budget is not None else None,
                "reason": reason,
                "now": event.at_us,
                "by": by,
            },
        )
        for account in accounts:
            if account.unit in limits:
                _move_limit(connection, account.id, limits[account.unit] + account.raised - account.limit, 0)
        append_in(connection, event)

    return _change(store, budget_id, event.at_us, claim, write)


def raise_limit(
    store: Store, one: Raise, *, reason: str, by: str, event: Event, claim: Callable[[Connection], bool]
) -> bool:
    """Raises the open accounts and, until it ends, those that are opened; False when the command was given before."""

    def write(connection: Connection, accounts: Sequence[OpenAccount]) -> None:
        rows(
            connection,
            f"""INSERT INTO raises (id, budget_id, who, cost_micros, tokens, until_us, reason, raised_us, raised_by,
                epoch) VALUES (:id, :budget, :who, :cost, :tokens, :until, :reason, :now, :by, {EPOCH} + 1)""",
            {
                "id": one.id,
                "budget": one.budget_id,
                "who": one.who,
                "cost": one.cost_micros,
                "tokens": one.tokens,
                "until": one.until_us,
                "reason": reason,
                "now": event.at_us,
                "by": by,
            },
        )
        for account in _of(one, accounts):
            _move_limit(connection, account.id, one.amount(account.unit), one.amount(account.unit))
        append_in(connection, event)

    return _change(store, one.budget_id, event.at_us, claim, write)


def end_raise(store: Store, one: Raise, event: Event) -> bool:
    """Takes a raise that is over back from the accounts that are open; False when somebody else did."""

    def ended(connection: Connection) -> bool:
        return bool(
            rows(
                connection,
                f"""UPDATE raises SET ended_us = :now, epoch = {EPOCH} + 1
                    WHERE id = :id AND ended_us IS NULL RETURNING id""",
                {"id": one.id, "now": event.at_us},
            )
        )

    def write(connection: Connection, accounts: Sequence[OpenAccount]) -> None:
        for account in _of(one, accounts):
            _move_limit(connection, account.id, -one.amount(account.unit), -one.amount(account.unit))
        append_in(connection, event)

    return _change(store, one.budget_id, event.at_us, ended, write)


def open_ones(store: Reader, now_us: int) -> list[OpenAccount]:
    """The limited accounts of every budget whose windows are open."""
    return _summed(store.read(_OPEN.format(where="1 = 1"), {"scope": SCOPE, "now": now_us}))


def book(store: Reader) -> Book:
    """What was set and raised, as this reader sees it."""
    set_ones = store.read("SELECT id, config FROM budgets WHERE config IS NOT NULL", {})
    lasting = store.read(
        "SELECT id, budget_id, who, cost_micros, tokens, until_us FROM raises WHERE ended_us IS NULL ORDER BY id", {}
    )
    return Book(
        {row[0]: parse_budget(row[1]) for row in set_ones},
        tuple(Raise(*row) for row in lasting),
    )


def listing(store: Store) -> list[RowMapping]:
    """The budgets that people set, or took back, by id."""
    with store.statement() as connection:
        return list(connection.execute(select(budgets).order_by(budgets.c.id)).mappings())


def lasting_raises(store: Store) -> list[RowMapping]:
    """The raises that have not ended, the first to end first."""
    query = select(raises).where(raises.c.ended_us.is_(None)).order_by(raises.c.until_us, raises.c.id)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def _change(
    store: Store,
    budget_id: str,
    now_us: int,
    claim: Callable[[Connection], bool],
    write: Callable[[Connection, Sequence[OpenAccount]], None],
) -> bool:
    """One change of a budget's limits, with its open accounts locked and no admission under way."""
    for _ in range(_ROUNDS_MAX):
        try:
            with store.transaction() as connection:
                # Before the admissions are held off: they lock accounts first, too.
                locked = _open_accounts(connection, budget_id, now_us, lock=True)
                exclude_admissions(store, connection)
                accounts = _open_accounts(connection, budget_id, now_us)
                if {account.id for account in accounts} != {account.id for account in locked}:
                    raise _Opened
                if not claim(connection):
                    return False
                write(connection, accounts)
                return True
        except _Opened:
            continue
    raise AssertionError(f"accounts of {budget_id} were opened for {_ROUNDS_MAX} rounds")


def _open_accounts(connection: Connection, budget_id: str, now_us: int, *, lock: bool = False) -> list[OpenAccount]:
    locking = " FOR NO KEY UPDATE OF a" if lock and connection.dialect.name == "postgresql" else ""
    found = rows(
        connection,
        _OPEN.format(where="substr(a.scope_id, 1, :length) = :prefix") + locking,
        {"scope": SCOPE, "prefix": f"{budget_id}:", "length": len(budget_id) + 1, "now": now_us},
    )
    return _summed(found)


def _summed(found: Sequence[Any]) -> list[OpenAccount]:
    """Accounts from their rows."""
    summed: dict[str, OpenAccount] = {}
    for id_, scope_id, unit, limit, raised in found:
        before = summed.get(id_)
        limit, raised = (limit, raised) if before is None else (limit + before.limit, raised + before.raised)
        summed[id_] = OpenAccount(id_, scope_id, Unit(unit), limit, raised)
    return list(summed.values())


def _of(one: Raise, accounts: Sequence[OpenAccount]) -> list[OpenAccount]:
    """The accounts that a raise is for."""
    return [
        account
        for account in accounts
        if one.amount(account.unit) and one.who in (None, budget_of(account.scope_id)[1])
    ]


def _move_limit(connection: Connection, account_id: str, limit_delta: int, raised_delta: int) -> None:
    level_in(connection, account_id, limit_delta=limit_delta)
    values = {"id": account_id, "raised": raised_delta}
    rows(connection, "UPDATE accounts SET raised = coalesce(raised, 0) + :raised WHERE id = :id", values)
