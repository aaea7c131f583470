"""What PostgreSQL reads for an action does not grow with what is there already, with or without statistics of it."""

import pytest

from governance.core.actions import State
from governance.core.ledger import Usage
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.top_up import ToppedUp, top_up
from tests.support.governed import Desk

_ACTIONS = 60
_READ = """SELECT coalesce(sum(idx_tup_read), 0), (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
        WHERE relname IN ('actions', 'accounts', 'events', 'entries')) FROM pg_stat_user_indexes"""
_ENTRIES = """INSERT INTO entries (account_id, action_id, attempt, kind, held_delta, posted_delta, at_us)
    SELECT (SELECT min(id) FROM accounts), 'other' || n, 1, kind, 0, 0, 0
    FROM generate_series(1, 5000) n, (VALUES ('hold'), ('top_up'), ('post')) AS of (kind)"""
_OTHERS = """INSERT INTO accounts (id, account, stripe, stripes, scope, scope_id, unit, window_start_us, window_end_us,
        posted, held) SELECT 'budget:' || n, 'budget:' || n, 0, 1, 'budget', CAST(n AS text), 'tokens', 0, 1, 0, 0
        FROM generate_series(1, 1500) n"""


@pytest.fixture
def server(desk: Desk) -> Desk:
    if not desk.gov.store.is_postgresql:
        pytest.skip("SQLite plans every statement by the table's own indexes")
    return desk


def read(desk: Desk) -> tuple[int, int]:
    """Rows that were read of the tables of an action, by index and by scanning, since the database was made."""
    desk.gov.store.run("SELECT 1 FROM pg_stat_force_next_flush()", {})
    by_index, by_scan = desk.gov.store.read(_READ, {})[0]
    return int(by_index), int(by_scan)


def work(desk: Desk) -> None:
    """From its sixth execution on, a statement keeps the plan that it has then."""
    for _ in range(_ACTIONS):
        made = desk.submit()
        desk.finish(desk.admitted(made))
        assert desk.state(made) == State.SUCCEEDED


def test_an_action_reads_no_other_actions_of_its_session(server: Desk) -> None:
    """Also where the plans are made of tables with a handful of rows and no statistics."""
    work(server)
    by_index, by_scan = read(server)
    # Its own row, session, accounts and entries: a few for each statement.
    assert by_index < 40 * _ACTIONS
    assert by_scan < 10 * _ACTIONS


def test_an_action_reads_no_other_accounts(server: Desk) -> None:
    server.gov.store.run(_OTHERS, {})
    server.gov.store.run("ANALYZE accounts", {})
    before = read(server)
    work(server)
    by_index, by_scan = (now - then for now, then in zip(read(server), before, strict=True))
    assert by_index < 40 * _ACTIONS
    assert by_scan < 10 * _ACTIONS


def test_the_end_of_an_attempt_that_has_held_more_reads_no_other_entries(server: Desk) -> None:
    desk = server
    desk.finish(desk.admitted(desk.submit()))
    desk.gov.store.run(_ENTRIES, {})
    desk.gov.store.run("ANALYZE entries", {})
    before = read(desk)
    for _ in range(_ACTIONS):
        run = desk.admitted(desk.submit(cost_micros=10))
        assert isinstance(top_up(desk.gov, run, run.holds, 10, 0), ToppedUp)
        ending = Finish(run.ref, run.holds, Succeeded("null"), Usage(20, 0), "test", desk.gov.clock.now_us(), True)
        assert isinstance(finish(desk.gov, ending), Settled)
    by_index, by_scan = (now - then for now, then in zip(read(desk), before, strict=True))
    assert by_index < 80 * _ACTIONS
    assert by_scan < 10 * _ACTIONS
