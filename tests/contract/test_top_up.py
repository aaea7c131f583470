"""More of a hold while an attempt runs: on all accounts or on none, closed with the hold, whatever the end."""

from dataclasses import replace

import pytest

from governance.core.ledger import Usage
from governance.operations import audit, heartbeat, recover, switches
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.top_up import Gone, NoRoom, ToppedUp, top_up
from tests.support import books
from tests.support.governed import LEASE, Desk


def test_a_top_up_is_held_and_closed_with_the_hold(desk: Desk) -> None:
    run = desk.admitted(desk.submit(cost_micros=1000, tokens=10))
    first = top_up(desk.gov, run, run.holds, 500, 20)
    assert isinstance(first, ToppedUp)
    second = top_up(desk.gov, run, first.holds, 500, 0)
    assert isinstance(second, ToppedUp)
    assert {str(hold.unit): hold.amount for hold in second.holds} == {"actions": 1, "cost_micros": 2000, "tokens": 30}
    assert desk.account("cost_micros")["held"] == 2000
    assert audit.verify(desk.gov).problems == ()
    books.assert_agree(desk.gov)
    # Whoever ends it knows of the first hold only: what is closed is what the store says.
    ending = Finish(run.ref, run.holds, Succeeded("null"), Usage(1500, 25), "test", desk.gov.clock.now_us(), True)
    assert isinstance(finish(desk.gov, ending), Settled)
    assert isinstance(finish(desk.gov, ending), Settled)
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 1500, "held": 0}
    assert desk.account("tokens") == {"limit": 100_000, "posted": 25, "held": 0}
    assert top_up(desk.gov, run, second.holds, 1, 1) == Gone()
    assert audit.verify(desk.gov).problems == ()


def test_no_room_for_more_holds_nothing_and_says_where(desk: Desk) -> None:
    run = desk.admitted(desk.submit(stream="small", cost_micros=40_000, tokens=900))
    found = top_up(desk.gov, run, run.holds, 1000, 101)
    assert isinstance(found, NoRoom)
    assert (found.account.unit, found.wanted, found.account.left) == ("tokens", 101, 100)
    assert desk.account("cost_micros", "small")["held"] == 40_000
    assert isinstance(top_up(desk.gov, run, run.holds, 60_000, 100), ToppedUp)
    assert isinstance(top_up(desk.gov, run, run.holds, 0, 0), ToppedUp)
    books.assert_agree(desk.gov)


def test_an_attempt_that_vanishes_posts_its_hold_with_its_top_ups(desk: Desk) -> None:
    heartbeat.register(desk.gov, LEASE.worker_id, 1)
    made = desk.submit(cost_micros=1000, tokens=10)
    run = desk.admitted(made)
    assert isinstance(top_up(desk.gov, run, run.holds, 500, 20), ToppedUp)
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert desk.state(made) == "queued"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 1500, "held": 0}
    assert desk.account("tokens")["posted"] == 30
    flags = desk.gov.store.read(
        """SELECT e.flag FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE e.kind = 'expire' AND a.unit <> 'actions'""",
        {},
    )
    assert [row[0] for row in flags] == ["unreported"] * 2
    # The zombie asks for more: its attempt is gone, also while the next one runs.
    again = desk.admitted(made)
    assert top_up(desk.gov, run, run.holds, 1, 1) == Gone()
    assert isinstance(top_up(desk.gov, again, again.holds, 1, 1), ToppedUp)
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_top_up_is_never_negative(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    with pytest.raises(AssertionError):
        top_up(desk.gov, run, run.holds, -1, 0)
    assert top_up(desk.gov, replace(run, ref=replace(run.ref, attempt=7)), run.holds, 1, 0) == Gone()
    assert switches.board_now(desk.gov).engaged == ()
