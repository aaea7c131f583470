"""What PostgreSQL reads for an action does not grow with the actions before it, also before it has any statistics."""

import pytest

from governance.core.actions import State
from tests.support.governed import Desk

_ACTIONS = 60
_READ = """SELECT coalesce(sum(idx_tup_read), 0), (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
        WHERE relname IN ('actions', 'accounts', 'events', 'entries')) FROM pg_stat_user_indexes"""


def test_an_action_reads_no_other_actions_of_its_session(desk: Desk) -> None:
    store = desk.gov.store
    if not store.is_postgresql:
        pytest.skip("SQLite plans every statement by the table's own indexes")
    # From its sixth execution on, a statement keeps the plan that it has then: of tables with a handful of rows.
    for _ in range(_ACTIONS):
        made = desk.submit()
        desk.finish(desk.admitted(made))
        assert desk.state(made) == State.SUCCEEDED
    store.run("SELECT 1 FROM pg_stat_force_next_flush()", {})
    by_index, by_scan = store.read(_READ, {})[0]
    # Its own row, session, accounts and entries: a few for each statement.
    assert by_index < 30 * _ACTIONS
    assert by_scan < 10 * _ACTIONS
