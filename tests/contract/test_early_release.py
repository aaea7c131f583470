"""Where writers queue for a hot account, a commit gives its locks back before it is on disk and is waited for apart.

It has to be the same write in every other respect, and on disk when the caller goes on. PostgreSQL only.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from acp_tasks.fleet.postgres import PostgresServer
from governance.core.actions import Lease
from governance.core.ledger import Usage
from governance.operations import audit
from governance.operations.answers import Admitted, Denied
from governance.operations.finish import AskedToRetry, Fenced, Raised, Settled
from governance.operations.recover import child_gone
from governance.store.engine import Store
from tests.support import books
from tests.support.governed import LEASE, Desk, make_governance

pytestmark = pytest.mark.postgres
_numbers = itertools.count()


class Queueing(Store):
    """Every write that locks accounts takes the early release."""

    flushed = 0

    @property
    def queueing(self) -> int:
        return 1

    @queueing.setter
    def queueing(self, _: int) -> None:
        pass

    def run_then_flush(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        self.flushed += 1
        return super().run_then_flush(sql, values)


class Careless(Queueing):
    """Gives its locks back early, and forgets to wait."""

    def run_then_flush(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return self.run(sql, values)


def desk_on(url: str, kind: type[Store], pool_size: int = 1) -> Desk:
    gov = make_governance(url)
    gov.store.close()
    return Desk(replace(gov, store=kind(url, pool_size=pool_size)))


@pytest.fixture
def hasty(postgres_url: str) -> Iterator[Desk]:
    desk = desk_on(postgres_url, Queueing)
    yield desk
    desk.gov.store.close()


def store(desk: Desk) -> Queueing:
    assert isinstance(desk.gov.store, Queueing)
    return desk.gov.store


def live(desk: Desk) -> list[tuple[Any, ...]]:
    """A few lives with every write that holds or closes, and a refusal; what is left of them, without ids."""
    first, second = desk.submit(stream="small", cost_micros=700), desk.submit(stream="small", cost_micros=99_500)
    run = desk.admitted(first)
    refused = desk.arrive(second)
    assert isinstance(refused, Denied)
    desk.finish(run, AskedToRetry("flaky", desk.gov.clock.now_us()), Usage(cost_micros=300))
    again = desk.admitted(first)
    assert isinstance(desk.finish(run), Fenced)
    assert isinstance(desk.finish(again, usage=Usage(cost_micros=900, tokens=1)), Settled)
    assert isinstance(desk.finish(again, usage=Usage(cost_micros=900, tokens=1)), Settled)
    desk.finish(desk.admitted(desk.submit(stream="small")), Raised("E", "no"))
    desk.admitted(desk.submit(stream="small", idempotent=False))
    child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()
    rows = [
        *desk.gov.store.read("SELECT state, attempt, error_type, rule FROM actions ORDER BY created_us, id", {}),
        *desk.gov.store.read("SELECT unit, posted, held FROM accounts ORDER BY id", {}),
        *desk.gov.store.read("SELECT kind, held_delta, posted_delta, flag FROM entries ORDER BY id", {}),
        *desk.gov.store.read("SELECT kind, attempt, state FROM events ORDER BY id", {}),
    ]
    return [tuple(row) for row in rows]


def test_it_does_what_a_write_does_that_waits_at_once(hasty: Desk, postgres_server: PostgresServer) -> None:
    hurried = live(hasty)
    # A lost attempt is ended in a transaction: what it holds is read with its action locked.
    assert store(hasty).flushed == 11, "four holds, two foreseen in vain, three ends, and two ends that came too late"
    plain = Desk(make_governance(postgres_server.create_database("unhurried")))
    try:
        assert live(plain) == hurried
    finally:
        plain.gov.store.close()
        postgres_server.drop_database("unhurried")


def test_the_next_statement_of_the_connection_waits_for_the_disk_again(hasty: Desk) -> None:
    def commits() -> str:
        return str(store(hasty).read("SHOW synchronous_commit", {})[0][0])

    backend = store(hasty).read("SELECT pg_backend_pid()", {})[0][0]
    run = hasty.admitted(hasty.submit())
    assert commits() == "on"
    hasty.finish(run)
    hasty.finish(run)
    assert commits() == "on"
    with store(hasty).transaction() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    assert store(hasty).read("SELECT pg_backend_pid()", {})[0][0] == backend, "all of it on one connection"
    assert store(hasty).flushed == 3


def test_what_the_schema_refuses_is_raised_and_the_connection_goes_on(hasty: Desk) -> None:
    backend = store(hasty).read("SELECT pg_backend_pid()", {})[0][0]
    made, next_one = hasty.submit(), hasty.submit()
    account = store(hasty).read("SELECT min(id) FROM accounts", {})[0][0]
    store(hasty).run(
        """INSERT INTO entries (account_id, action_id, attempt, kind, held_delta, posted_delta, at_us)
            VALUES (:account, :action, 1, 'hold', 0, 0, 0)""",
        {"account": account, "action": made.action_id},
    )
    with pytest.raises(psycopg.IntegrityError, match="uq_entries_hold"):
        hasty.arrive(made)
    assert hasty.state(made) == "queued"
    assert hasty.account("actions")["held"] == 0
    idle = store(hasty).read("SELECT state FROM pg_stat_activity WHERE pid = :pid", {"pid": backend})
    assert idle[0][0] == "active", "it is this statement's, and no transaction was left open in it"
    hasty.finish(hasty.admitted(next_one))
    assert store(hasty).read("SELECT pg_backend_pid(), current_setting('synchronous_commit')", {})[0] == (backend, "on")


def test_many_on_one_account_get_exactly_what_it_has(postgres_url: str) -> None:
    desk = desk_on(postgres_url, Queueing, pool_size=8)
    made = [desk.submit(stream="small", cost_micros=1, tokens=0) for _ in range(80)]

    def take(number: int) -> str:
        return type(desk.arrive(made[number], lease=Lease("w", str(number)))).__name__

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(take, range(80)))
    assert (seen.count("Admitted"), seen.count("Denied")) == (10, 70)
    books.assert_agree(desk.gov)
    desk.gov.store.close()


@pytest.fixture
def mortal(walkable_folder: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(walkable_folder / f"early-{next(_numbers)}", fsync=False, connections_max=10).start()
    try:
        yield server
    finally:
        server.stop()


def survives(server: PostgresServer, desk: Desk, *, ended: bool) -> bool:
    """Admits an action, or ends it too, kills the server at once and looks what it remembers."""
    made = desk.submit(cost_micros=1, tokens=0)
    run = desk.admitted(made)
    if ended:
        desk.finish(run)
    server.kill()
    server.restart()
    return desk.state(made) == ("succeeded" if ended else "running")


def test_what_was_answered_is_there_after_a_kill_of_the_server(mortal: PostgresServer) -> None:
    desk = desk_on(mortal.create_database("kept"), Queueing)
    for number in range(20):
        assert survives(mortal, desk, ended=number % 2 == 0)
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()
    assert isinstance(desk.arrive(desk.submit()), Admitted)
    desk.gov.store.close()


def test_without_the_second_commit_a_kill_loses_what_was_answered(mortal: PostgresServer) -> None:
    """The control: shows that the test above would see it."""
    desk = desk_on(mortal.create_database("lost"), Careless)
    assert not all(survives(mortal, desk, ended=False) for _ in range(10))
    desk.gov.store.close()
