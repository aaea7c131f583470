"""An account in several rows is one account: held, posted, read, recovered and pruned as one, to its last cent."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from governance.clock import SystemClock
from governance.core.ledger import Account, Unit, Usage, row_id
from governance.core.sessions import account_id
from governance.core.windows import Window
from governance.operations import audit, metrics, recover, reports, rotation
from governance.operations.answers import Admitted, Denied
from governance.operations.finish import Settled, give_back
from governance.store import accounts, alerts, checkpoints, ledger
from governance.store.engine import Store, rows
from tests.support import books
from tests.support.governed import ANN, LEASE, Desk, make_governance
from tests.support.pruned import later, left, prune, sessions
from tests.support.racer import race

RACERS = 8
STRIPES = 16
LIMIT = 100_000
# What is left for many clients at once, and what they ask for.
LAST = 4000
CLIENTS = 50
SIZES = (1, 7, 60, 500)


def session(desk: Desk) -> str:
    return sessions(desk, "striped")[-1]


def shares(desk: Desk, account: str | None = None) -> list[tuple[int | None, int]]:
    """(limit, used) of an account's rows in order; by default of what the newest session may cost."""
    found = desk.gov.store.read(
        "SELECT limit_amount, posted + held FROM accounts WHERE account = :id ORDER BY stripe",
        {"id": account or account_id(session(desk), Unit.COST)},
    )
    return [(row[0], int(row[1])) for row in found]


def ask(desk: Desk, cost: int) -> Admitted | Denied:
    admission = desk.arrive(desk.submit(stream="striped", cost_micros=cost))
    assert isinstance(admission, Admitted | Denied), admission
    return admission


def take(desk: Desk, cost: int) -> Admitted:
    run = ask(desk, cost)
    assert isinstance(run, Admitted), run
    return run


def spend(desk: Desk, held: int, used: int) -> None:
    assert desk.finish(take(desk, held), usage=Usage(cost_micros=used, tokens=10)) == Settled()


def stripe_of(run: Admitted) -> int:
    return next(hold.stripe for hold in run.holds if hold.unit is Unit.COST)


def assert_sound(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


@contextmanager
def locked(desk: Desk, but: int | None = None) -> Iterator[None]:
    """Meanwhile somebody else has the stripes of what the session may cost, all or all but one."""
    with desk.gov.store.transaction() as connection:
        rows(
            connection,
            "SELECT 1 FROM accounts WHERE account = :id AND stripe <> :but ORDER BY stripe FOR UPDATE",
            {"id": account_id(session(desk), Unit.COST), "but": -1 if but is None else but},
        )
        yield


def test_everybody_sees_one_account(desk: Desk) -> None:
    run = take(desk, 700)
    store, now_us = desk.gov.store, desk.gov.clock.now_us()
    assert len(shares(desk)) == (STRIPES if store.is_postgresql else 1)
    lines = {line.unit: line for line in reports.list_budgets(desk.gov, session_id=None)}
    assert {unit: (line.limit_amount, line.posted, line.held) for unit, line in lines.items()} == {
        Unit.COST: (LIMIT, 0, 700),
        Unit.ACTIONS: (100_000, 0, 1),
        Unit.TOKENS: (None, 0, 10),
    }
    control = checkpoints.control(store, "striped", session(desk), 10)
    assert control["accounts"]["cost_micros"] == {"limit": LIMIT, "posted": 0, "held": 700}
    burns = {burn.account_id: (burn.limit, burn.held) for burn in alerts.open_budgets(store, now_us)}
    assert burns[lines[Unit.COST].id] == (LIMIT, 700)
    assert metrics.measure(desk.gov, ("relay",)).budgets
    desk.finish(run, usage=Usage(cost_micros=500, tokens=10))
    report = reports.show_action(desk.gov, run.ref.id)
    names = sorted(line.id for line in lines.values())
    assert [spent.account_id for spent in report.spent] == names
    # The trail names accounts; which stripe it was is the ledger's own.
    said = [json.loads(event.payload) for event in report.history]
    assert [sorted(one[key]) for one in said for key in ("holds", "posted") if key in one] == [names, names]
    assert audit.verify(desk.gov).accounts == 3
    assert_sound(desk)


def test_a_hold_may_be_larger_than_any_share(desk: Desk) -> None:
    first = take(desk, LIMIT - 10_000)
    second = take(desk, 10_000)
    assert isinstance(ask(desk, 1), Denied)
    desk.finish(first, usage=Usage(cost_micros=1000, tokens=0))
    assert isinstance(ask(desk, LIMIT - 11_000 + 1), Denied)
    third = take(desk, LIMIT - 11_000)
    for run in (second, third):
        desk.finish(run)
    assert desk.account("cost_micros", "striped") == {"limit": LIMIT, "posted": LIMIT, "held": 0}
    assert_sound(desk)


def test_what_a_stripe_used_beyond_its_share_is_no_room_of_the_others(desk: Desk) -> None:
    spend(desk, held=1000, used=60_000)
    assert all(used <= (share or 0) for share, used in shares(desk))
    assert isinstance(ask(desk, 40_001), Denied)
    spend(desk, held=40_000, used=39_999)
    assert isinstance(ask(desk, 2), Denied)
    # Beyond the limit of all: no stripe has room for anything.
    spend(desk, held=1, used=5000)
    assert all(used >= (share or 0) for share, used in shares(desk))
    assert isinstance(ask(desk, 0), Denied)
    assert desk.account("cost_micros", "striped") == {"limit": LIMIT, "posted": LIMIT + 4999, "held": 0}
    assert_sound(desk)


def test_what_a_dead_worker_held_is_given_up_where_it_was_held(desk: Desk) -> None:
    take(desk, 90_000)
    doomed = desk.submit(stream="striped", cost_micros=7000)
    desk.admitted(doomed)
    interrupted = take(desk, 2000)
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    books.assert_agree(desk.gov)
    assert desk.account("cost_micros", "striped") == {"limit": LIMIT, "posted": 99_000, "held": 0}
    assert not isinstance(desk.finish(interrupted), Settled)
    again = desk.submit(stream="striped", cost_micros=1000)
    run = desk.admitted(again)
    assert give_back(desk.gov, again.action_id, LEASE, run.action.started_us) or desk.finish(run) == Settled()
    assert_sound(desk)


def test_a_session_that_is_turned_or_pruned_is_so_as_a_whole(desk: Desk) -> None:
    spend(desk, held=9000, used=9000)
    later(desk, 60)
    rotation.turn(desk.gov, "striped", reason="enough", by=ANN)
    spend(desk, held=1000, used=1000)
    assert desk.account("cost_micros", "striped") == {"limit": LIMIT - 9000, "posted": 1000, "held": 0}
    assert len(shares(desk)) == (STRIPES if desk.gov.store.is_postgresql else 1)
    assert_sound(desk)
    later(desk)
    rotation.rotate(desk.gov, "beat")
    first, second = sessions(desk, "striped")[:2]
    summary = rotation.find_session(desk.gov, first).summary
    assert summary is not None
    assert summary["accounts"]["cost_micros"] == {"limit": LIMIT, "posted": 9000}
    later(desk)
    assert {one.session_id for one in prune(desk).pruned} >= {first, second}
    assert left(desk, first) == left(desk, second) == {}
    assert audit.verify(desk.gov).problems == ()


def test_an_account_is_opened_once_and_its_limit_can_change(desk: Desk) -> None:
    window = Window(0, 3_600_000_000)
    account = Account("team:red:0:actions", Unit.ACTIONS, 5, 0, 0, window.end_us, STRIPES)
    with desk.gov.store.transaction() as connection:
        assert accounts.open_in(connection, account, scope="team", scope_id="red", window=window)
    narrower = Account(account.id, Unit.ACTIONS, 9, 0, 0, window.end_us)
    with desk.gov.store.transaction() as connection:
        assert not accounts.open_in(connection, narrower, scope="team", scope_id="red", window=window)
        accounts.level_in(connection, account.id, limit_delta=3)
    assert sum(limit or 0 for limit, _ in shares(desk, account.id)) == 8
    assert accounts.make_room(desk.gov.store, account.id, 8)
    assert not accounts.make_room(desk.gov.store, account.id, 9)
    assert max(limit or 0 for limit, _ in shares(desk, account.id)) == 8
    with desk.gov.store.transaction() as connection:
        last = len(shares(desk, account.id)) - 1
        assert accounts.make_room_in(connection, account.id, 2, stripe=last)
    assert (shares(desk, account.id)[last][0] or 0) >= 2
    assert ledger.unshared(desk.gov.store) == []


@pytest.fixture
def on_postgres(postgres_url: str) -> Iterator[Desk]:
    gov = make_governance(postgres_url)
    yield Desk(gov)
    gov.store.close()


def test_a_hold_takes_a_stripe_that_nobody_has_and_waits_only_when_there_is_none(on_postgres: Desk) -> None:
    first = stripe_of(take(on_postgres, 10))
    for but in {0, 7, 15} - {first}:
        with locked(on_postgres, but):
            assert stripe_of(take(on_postgres, 10)) == but
    with ThreadPoolExecutor(1) as other:
        with locked(on_postgres):
            waiting = other.submit(take, on_postgres, 10)
            while not on_postgres.gov.store.read("SELECT 1 FROM pg_locks WHERE NOT granted", {}):
                assert not waiting.done(), waiting.result()
        assert isinstance(waiting.result(), Admitted)
    assert_sound(on_postgres)


def test_the_audit_finds_a_share_that_was_changed_and_a_stripe_that_is_gone(on_postgres: Desk) -> None:
    used = stripe_of(take(on_postgres, 10))
    account = account_id(session(on_postgres), Unit.COST)
    unused = row_id(account, 1 + used % 15)
    on_postgres.gov.store.run("UPDATE accounts SET limit_amount = 7000 WHERE id = :id", {"id": unused})
    assert audit.verify(on_postgres.gov).problems == (
        f"account {account}: 16 of 16 stripes are there, their shares sum to 100750 of 100000",
    )
    on_postgres.gov.store.run("DELETE FROM accounts WHERE id = :id", {"id": unused})
    assert audit.verify(on_postgres.gov).problems == (
        f"account {account}: 15 of 16 stripes are there, their shares sum to 93750 of 100000",
    )


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    yield Desk(gov)
    gov.store.close()


def test_eight_takers_get_exactly_what_all_stripes_have(racing: Desk, database_url: str) -> None:
    """Six fit each share; the last four only what is left of all of them."""
    seen = race(database_url, "take", "striped 15", RACERS)
    assert seen == {"admitted": 100, "denied": RACERS * 15 - 100}
    assert racing.account("cost_micros", "striped") == {"limit": LIMIT, "posted": 0, "held": LIMIT}
    assert_sound(racing)


def test_holds_closings_and_moving_shares_race_to_the_last_cent(racing: Desk, database_url: str) -> None:
    kept = take(racing, 60_000)
    with ThreadPoolExecutor(1) as churning:
        running = churning.submit(race, database_url, "churn", "25", RACERS)
        checked = 0
        while not running.done() or not checked:
            assert_sound(racing)
            checked += 1
        seen = running.result()
    account = racing.account("cost_micros", "striped")
    assert account == {"limit": LIMIT, "posted": seen["posted"], "held": 60_000}
    assert account["posted"] + account["held"] <= LIMIT + seen["beyond"]
    room = LIMIT - account["posted"] - account["held"]
    if room >= 0:
        assert isinstance(ask(racing, room + 1), Denied)
        take(racing, room)
    racing.finish(kept)
    assert_sound(racing)


def test_fifty_clients_spend_the_last_cent_of_sixteen_stripes(racing: Desk, database_url: str) -> None:
    """Holds of mixed sizes, none given back: whoever is refused asks for less, and only the last cent ends it.

    What is left only falls, so a refusal of what would still fit at the end was a false one.
    """
    take(racing, LIMIT - LAST)
    stores = [Store(database_url) for _ in range(CLIENTS)]

    def client(number: int) -> tuple[int, int]:
        """How much it got, and the least that it was refused."""
        gov = replace(racing.gov, store=stores[number], sessions={}, boards=[], charges={}, payers={})
        desk, rng = Desk(gov), random.Random(number)
        sizes, got, least = list(SIZES), 0, LIMIT
        while sizes:
            size = rng.choice(sizes)
            if isinstance(ask(desk, size), Admitted):
                got += size
                continue
            least = min(least, size)
            sizes = [smaller for smaller in sizes if smaller < size]
        return got, least

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(client, range(CLIENTS)))
    for store in stores:
        store.close()
    assert sum(got for got, _ in found) == LAST
    assert {least for _, least in found} == {1}
    assert racing.account("cost_micros", "striped") == {"limit": LIMIT, "posted": 0, "held": LIMIT}
    assert_sound(racing)
