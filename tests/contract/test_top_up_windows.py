"""A running attempt that holds more is charged to the windows and the budgets of that moment, with what is beyond."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from governance.core.instants import SECOND_US
from governance.core.ledger import Unit, Usage
from governance.middleware.allowance import Allowance, SetAside
from governance.middleware.call import Call
from governance.middleware.spool import Spool
from governance.operations import audit, budgets, heartbeat, recover
from governance.operations.admit import Arrival
from governance.operations.answers import Admitted
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.reconcile import reconcile
from governance.operations.top_up import NoRoom, ToppedUp, top_up
from governance.store import ledger
from tests.support import books
from tests.support.charged import BUDGETS, DAY_S, accounts, ask, clock
from tests.support.fleet import eventually
from tests.support.governed import ANN, LEASE, POLICY, Desk, make_governance

COST = "each-user:daily:user=ann cost_micros"


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    yield Desk(gov)
    gov.store.close()


def held_more(desk: Desk, run: Admitted, cost_micros: int, tokens: int = 0) -> Admitted:
    """`run` with what it holds after a top-up a second later."""
    clock(desk).pass_s(1)
    more = top_up(desk.gov, run, run.holds, cost_micros, tokens)
    assert isinstance(more, ToppedUp), more
    books.assert_agree(desk.gov)
    return replace(run, holds=more.holds)


def end(desk: Desk, run: Admitted, usage: Usage) -> None:
    """As a worker ends it that may have missed the answer to its last top-up: by what the store says it holds."""
    ending = Finish(run.ref, (), Succeeded("null"), usage, "test", desk.gov.clock.now_us(), topped_up=True)
    assert isinstance(finish(desk.gov, ending), Settled)
    assert isinstance(finish(desk.gov, ending), Settled)
    books.assert_agree(desk.gov)
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


def by_day(desk: Desk, unit: str = "cost_micros", user: str = "ann") -> list[tuple[int, int]]:
    """(posted, held) of the user's days, the first one first."""
    found = desk.gov.store.read(
        "SELECT posted, held FROM accounts WHERE scope_id = :id AND unit = :unit ORDER BY window_start_us",
        {"id": f"each-user:daily:user={user}", "unit": unit},
    )
    return [(int(row[0]), int(row[1])) for row in found]


@pytest.mark.parametrize(
    ("used", "charged"),
    [
        (800, [800, 0, 0]),
        (1500, [1500, 0, 0]),
        (1700, [1500, 200, 0]),
        (2400, [1500, 700, 200]),
        (9000, [1500, 700, 6800]),
        (None, [1500, 700, 300]),
    ],
)
def test_what_is_used_is_charged_to_the_day_in_which_it_was_held(
    desk: Desk, used: int | None, charged: list[int]
) -> None:
    run = held_more(desk, ask(desk, user="ann", cost_micros=1000), 500)
    clock(desk).pass_s(DAY_S)
    run = held_more(desk, held_more(desk, run, 300), 400)
    assert by_day(desk) == [(0, 1500), (0, 700)]
    clock(desk).pass_s(DAY_S)
    run = held_more(desk, run, 300)
    assert desk.gov.store.read("SELECT held FROM accounts WHERE scope = 'session' AND held > 1", {})[0][0] == 2500

    end(desk, run, Usage(used, 0))

    assert by_day(desk) == [(amount, 0) for amount in charged]
    flagged = desk.gov.store.read(
        """SELECT e.posted_delta, e.flag FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE a.scope = 'budget' AND a.unit = 'cost_micros' AND e.flag IS NOT NULL ORDER BY e.id""",
        {},
    )
    expected = {9000: [(6800, "over_hold")], None: [(1500, "unreported"), (700, "unreported"), (300, "unreported")]}
    assert sorted(tuple(row) for row in flagged) == sorted(expected.get(used, []))


def test_the_new_day_has_its_own_limit_and_the_old_one_is_not_asked_any_more(desk: Desk) -> None:
    run = ask(desk, user="ann", cost_micros=9000)
    short = top_up(desk.gov, run, run.holds, 1001, 0)
    assert isinstance(short, NoRoom)
    assert (short.account.left, short.wanted) == (1000, 1001)
    clock(desk).pass_s(DAY_S)
    # What others have used of the new day counts.
    assert isinstance(ask(desk, user="ann", cost_micros=4000), Admitted)
    short = top_up(desk.gov, run, run.holds, 6001, 0)
    assert isinstance(short, NoRoom)
    assert (short.account.left, short.account.held) == (6000, 4000)
    assert by_day(desk) == [(0, 9000), (0, 4000)]
    end(desk, held_more(desk, run, 6000), Usage(15_000, 0))
    assert by_day(desk) == [(9000, 0), (6000, 4000)]


def test_a_budget_that_is_set_meanwhile_is_asked_for_what_comes_after(desk: Desk) -> None:
    run = ask(desk, user="ann", cost_micros=1000)
    wanted = {"identity": {"user": "ann"}, "period": "monthly", "max_cost_usd": "0.0006", "stripes": 4}
    budgets.set_budget(desk.gov, "meanwhile", wanted, by=ANN, reason="x")
    clock(desk).pass_s(1)
    short = top_up(desk.gov, run, run.holds, 601, 0)
    assert isinstance(short, NoRoom)
    assert (short.account.id.split(":")[1], short.account.left) == ("meanwhile", 600)
    # All of its room, which is in four stripes.
    run = held_more(desk, run, 600)
    end(desk, run, Usage(1550, 0))
    assert accounts(desk)[COST] == (10_000, 1550, 0)
    (striped,) = (
        one for one in ledger.accounts(desk.gov.store, [hold.account_id for hold in run.holds]) if one.limit == 600
    )
    assert (striped.posted, striped.held) == (550, 0)
    assert ask(desk, user="ann", cost_micros=51).rule == "budget:meanwhile"


def test_a_budget_that_is_taken_back_meanwhile_keeps_what_was_held(desk: Desk) -> None:
    wanted = {"identity": {"user": "ann"}, "period": "daily", "max_cost_usd": "0.002"}
    budgets.set_budget(desk.gov, "meanwhile", wanted, by=ANN, reason="x")
    run = ask(desk, user="ann", cost_micros=1500)
    budgets.set_budget(desk.gov, "meanwhile", None, by=ANN, reason="y")
    end(desk, held_more(desk, run, 3000), Usage(4000, 0))
    assert accounts(desk)["meanwhile:daily:user=ann cost_micros"] == (2000, 1500, 0)
    assert accounts(desk)[COST] == (10_000, 4000, 0)


def test_a_budget_that_comes_back_is_not_charged_what_was_held_without_it(desk: Desk) -> None:
    wanted = {"identity": {"user": "ann"}, "period": "daily", "max_cost_usd": "0.1"}
    budgets.set_budget(desk.gov, "comes-and-goes", wanted, by=ANN, reason="x")
    run = ask(desk, user="ann", cost_micros=1000)
    budgets.set_budget(desk.gov, "comes-and-goes", None, by=ANN, reason="y")
    run = held_more(desk, run, 500)
    budgets.set_budget(desk.gov, "comes-and-goes", wanted, by=ANN, reason="z")
    run = held_more(desk, run, 300)
    end(desk, run, Usage(1250, 0))
    assert accounts(desk)["comes-and-goes:daily:user=ann cost_micros"] == (100_000, 1000, 0)
    assert accounts(desk)[COST] == (10_000, 1250, 0)


def test_a_new_window_is_opened_by_the_policy_of_now(desk: Desk, database_url: str) -> None:
    """The attempt goes on under the policy that it was admitted by; what others may spend today it does not say."""
    run = ask(desk, user="ann", tokens=10)
    lower = BUDGETS.replace("max_tokens: 1000", "max_tokens: 500")
    today = "each-user:daily:user=ann tokens"
    later = Desk(make_governance(database_url, policy=POLICY + lower), LEASE)
    for one in (desk, later):
        clock(one).pass_s(DAY_S)
    assert isinstance(ask(later, user="bob"), Admitted), "opens the session of today, by the new policy"
    more = top_up(desk.gov, run, run.holds, 0, 500)
    assert isinstance(more, ToppedUp)
    short = top_up(desk.gov, run, more.holds, 0, 1)
    assert isinstance(short, NoRoom)
    assert short.charge is not None
    assert (short.account.limit, short.charge.budget.id) == (500, "each-user")
    assert accounts(desk)[today] == (500, 0, 500)
    assert ask(later, user="ann", tokens=1).rule == "budget:each-user"
    later.gov.store.close()


def test_a_raise_that_is_over_is_no_room_for_more(desk: Desk) -> None:
    until_us = clock(desk).now_us() + SECOND_US
    budgets.raise_budget(desk.gov, "each-user", until_us=until_us, reason="x", by=ANN, cost_micros=5000)
    run = held_more(desk, ask(desk, user="ann", cost_micros=9000), 1000)
    assert isinstance(top_up(desk.gov, run, run.holds, 1, 0), NoRoom)
    assert accounts(desk)[COST] == (10_000, 0, 10_000)


def test_an_attempt_that_vanishes_charges_each_day_what_it_held_there(desk: Desk) -> None:
    heartbeat.register(desk.gov, LEASE.worker_id, 1)
    run = ask(desk, user="ann", cost_micros=1000, tokens=10)
    clock(desk).pass_s(DAY_S)
    held_more(desk, run, 300, 5)
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert by_day(desk) == [(1000, 0), (300, 0)]
    assert by_day(desk, "tokens") == [(10, 0), (5, 0)]
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize("way", ["finish", "recover"])
def test_what_is_held_while_the_attempt_is_being_ended_is_closed_with_it(
    postgres_url: str, days: int, way: str
) -> None:
    """A thread of the body calls a model as the body returns, or the worker is given up: the account is a hot one."""
    desk = Desk(make_governance(postgres_url, policy=POLICY + BUDGETS))
    heartbeat.register(desk.gov, LEASE.worker_id, 1)
    run = ask(desk, user="ann", cost_micros=1000)
    clock(desk).pass_s(days * DAY_S + 1)
    ask(Desk(desk.gov, replace(LEASE, worker_id="other")), user="ann", cost_micros=1)

    def waiting() -> int:
        found = desk.gov.store.read("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", {})
        return int(found[0][0])

    def ended() -> object:
        if way == "recover":
            return recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
        ending = Finish(run.ref, run.holds, Succeeded("null"), Usage(1200, 0), "test", desk.gov.clock.now_us(), True)
        return finish(desk.gov, ending)

    with ThreadPoolExecutor(2) as pool:
        with psycopg.connect(postgres_url.replace("postgresql+psycopg", "postgresql")) as busy:
            busy.execute("SELECT 1 FROM accounts WHERE scope = 'budget' FOR NO KEY UPDATE")
            more = pool.submit(top_up, desk.gov, run, run.holds, 500, 0)
            eventually(lambda: waiting() == 1, "more is about to be held")
            ending = pool.submit(ended)
            eventually(lambda: waiting() == 2, "the attempt is about to be ended")
        assert isinstance(more.result(20), ToppedUp)
        ending.result(20)
    assert sum(held for _, held in by_day(desk)) == 1, "of the other action"
    assert sum(posted for posted, _ in by_day(desk)) == (1500 if way == "recover" else 1200)
    books.assert_agree(desk.gov)
    assert reconcile(desk.gov).findings == ()
    desk.gov.store.close()


def test_a_hold_that_is_not_closed_whole_is_found(desk: Desk) -> None:
    run = held_more(desk, ask(desk, user="ann", cost_micros=1000), 500)
    # As if nobody had asked what it holds by now.
    desk.finish(replace(run, holds=tuple(replace(hold, amount=min(hold.amount, 1000)) for hold in run.holds)))
    found = "".join(reconcile(desk.gov).findings)
    assert run.ref.id in found
    assert found.count("each-user:daily:user=ann") >= 1


def test_a_call_of_a_model_after_midnight_is_the_new_days(desk: Desk, tmp_path: Path) -> None:
    run = ask(desk, user="ann")
    arrival = Arrival(run.ref.id, run.action.stream, run.action.digest, {}, redelivered=False)
    call = Call(desk.gov, Spool(tmp_path), arrival, LEASE, admission=run)
    allowance = Allowance(call)
    for used in (100, 30):
        assert isinstance(allowance.set_aside(200, 20), SetAside)
        allowance.use((200, 20), (used, 10))
        assert (allowance.left(Unit.COST), allowance.left(Unit.TOKENS)) == (200 - used, 10)
        clock(desk).pass_s(DAY_S)
    # What is left of yesterday's hold is used first: of the second call 100 of 200 were held yesterday.
    assert by_day(desk) == [(0, 200), (0, 100)]
    end(desk, run, call.add_up())
    assert by_day(desk) == [(130, 0), (0, 0)]
    assert by_day(desk, "tokens") == [(20, 0), (0, 0)]
