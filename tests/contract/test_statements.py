"""Single statements on PostgreSQL: what is written and read, and what becomes of the connection that is kept."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from governance.store.engine import Store, rows


@pytest.fixture(params=[1, 2], ids=["pool-of-one", "pool-of-two"])
def store(request: pytest.FixtureRequest, database_url: str) -> Iterator[Store]:
    if not database_url.startswith("postgresql"):
        pytest.skip("SQLite has its own cursor for them")
    made = Store(database_url, pool_size=request.param)
    yield made
    made.close()


def test_values_come_back_as_they_were_sent(store: Store) -> None:
    sql = "SELECT CAST(:texts AS text[]), CAST(:numbers AS bigint[]), :text, CAST(:number AS bigint), :yes, :text"
    for number in (5, 70_000, 2**40, None):
        texts = ['a "quoted" \\ one', "{x, y}", "NULL", "", "é", None]
        values: dict[str, Any] = {"texts": texts, "numbers": [1, 2**40], "text": "%s", "number": number, "yes": True}
        # The second time it is prepared, the third time it is known.
        for _ in range(3):
            assert store.run(sql, values) == [(texts, [1, 2**40], "%s", number, True, "%s")]
    assert store.run("SELECT cardinality(CAST(:none AS text[]))", {"none": []}) == [(0,)]
    assert store.run("CREATE TEMPORARY TABLE notes (note text)", {}) == ()


def test_what_the_server_refuses_leaves_the_connection_as_it_was(store: Store) -> None:
    before = _server_process(store)
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            store.run("SELECT 1 / :zero", {"zero": 0})
        with pytest.raises(psycopg.DataError, match="NUL"):
            store.run("SELECT :text", {"text": "a\0b"})
    assert _server_process(store) == before
    with store.statement() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == before


def test_a_rollback_that_forgets_what_was_prepared_is_not_noticed(store: Store) -> None:
    for _ in range(3):
        assert _server_process(store)
    with pytest.raises(psycopg.errors.DivisionByZero):
        _fail_in_transaction(store)
    for _ in range(3):
        assert store.run("SELECT 1", {}) == [(1,)]
        assert _server_process(store)


def test_an_interrupt_leaves_no_answer_for_the_next_statement(store: Store) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            store.run("SELECT 'late', pg_sleep(5)", {})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert store.run("SELECT 'next'", {}) == [("next",)]


def test_a_connection_that_the_server_ended_is_replaced(store: Store, database_url: str) -> None:
    before = _server_process(store)
    other = Store(database_url)
    other.run("SELECT pg_terminate_backend(:pid, 5000)", {"pid": before})
    other.close()
    assert store.read("SELECT pg_backend_pid()", {})[0][0] != before


def test_more_threads_than_connections_wait_for_one_another(store: Store) -> None:
    def work(number: int) -> int:
        with store.transaction() as connection:
            connection.exec_driver_sql("SELECT 1")
        return int(store.run("SELECT CAST(:number AS integer)", {"number": number})[0][0])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(100))) == list(range(100))


def _fail_in_transaction(store: Store) -> None:
    with store.transaction() as connection:
        for _ in range(3):
            rows(connection, "SELECT 1", {})
        rows(connection, "SELECT 1 / 0", {})


def _server_process(store: Store) -> int:
    return int(store.run("SELECT pg_backend_pid()", {})[0][0])
