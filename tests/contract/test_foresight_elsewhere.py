"""What a process remembers decides nothing once another process, or an earlier hour, says otherwise."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from governance.core.directory import Directory
from governance.core.instants import SECOND_US
from governance.core.ledger import Usage
from governance.core.switches import Mode, Scope
from governance.operations import audit, budgets, directory, rotation, switches
from governance.operations.answers import Admitted, Cancelled, Denied
from governance.operations.charges import end_raises
from tests.contract.test_foresight import arrived
from tests.support import books
from tests.support.charged import BUDGETS, accounts, clock
from tests.support.governed import ANN, POLICY, Desk, make_governance

HOUR_US = 3600 * SECOND_US
SPARSE = {"identity": {"user": "ann"}, "period": "daily", "max_tokens": 5}


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    """A process that has admitted an action of ann's before: the next one costs one round trip."""
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    desk = Desk(gov)
    desk.finish(desk.admitted(of_ann(desk)))
    run, trips = arrived(desk, of_ann(desk))
    assert isinstance(run, Admitted)
    assert trips == 1 or not gov.store.is_postgresql
    desk.finish(run)
    yield desk
    gov.store.close()


@pytest.fixture
def other(desk: Desk, database_url: str) -> Iterator[Desk]:
    """Another process, at the same time."""
    gov = make_governance(database_url, policy=POLICY + BUDGETS, clock=desk.gov.clock)
    yield Desk(gov)
    gov.store.close()


def of_ann(desk: Desk, **changes: Any) -> Any:
    return desk.submit(**{"user": "ann", "agent_id": "desk-1", "cost_micros": 100, "tokens": 10, **changes})


def intact(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


@pytest.mark.parametrize("budget", ["each-user", "a-new-one"])
def test_a_budget_that_another_process_set(desk: Desk, other: Desk, budget: str) -> None:
    made = of_ann(desk)
    budgets.set_budget(other.gov, budget, SPARSE, by=ANN, reason="less")
    told, _ = arrived(desk, made)
    assert isinstance(told, Denied)
    assert told.rule == f"budget:{budget}"
    intact(desk)


@pytest.mark.parametrize("by_whom", ["the other one", "the next admission"])
def test_a_raise_that_is_over(desk: Desk, other: Desk, by_whom: str) -> None:
    until_us = desk.gov.clock.now_us() + 60 * SECOND_US
    budgets.raise_budget(other.gov, "each-user", until_us=until_us, reason="x", by=ANN, tokens=500, who="user=ann")
    run, _ = arrived(desk, of_ann(desk, tokens=1200))
    assert isinstance(run, Admitted)
    desk.finish(run, usage=Usage(0, 900))
    assert isinstance(arrived(desk, of_ann(desk, tokens=500))[0], Admitted)
    clock(desk).at_us = until_us
    if by_whom == "the other one":
        assert end_raises(other.gov, "test") == 1
    told, _ = arrived(desk, of_ann(desk, tokens=100))
    assert isinstance(told, Denied)
    assert told.rule == "budget:each-user"
    intact(desk)


def test_a_directory_that_another_process_loaded(desk: Desk, other: Desk) -> None:
    made = of_ann(desk, cost_micros=3000)
    directory.load(other.gov, Directory(("acme",), {"t1": "acme"}, {"ann": "t1"}), by=ANN)
    run, _ = arrived(desk, made)
    assert isinstance(run, Admitted)
    recorded = "SELECT team, org FROM actions WHERE id = :id"
    assert desk.gov.store.read(recorded, {"id": made.action_id}) == [("t1", "acme")]
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (30_000, 0, 3000)
    again, _ = arrived(desk, of_ann(desk, cost_micros=3000))
    assert isinstance(again, Admitted)
    # Moved to another team, of another org, by a later one.
    moved = of_ann(desk, cost_micros=3000)
    directory.load(other.gov, Directory(("acme", "beta"), {"t1": "acme", "t2": "beta"}, {"ann": "t2"}), by=ANN)
    assert isinstance(arrived(desk, moved)[0], Admitted)
    assert desk.gov.store.read(recorded, {"id": moved.action_id}) == [("t2", "beta")]
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (30_000, 0, 6000)


def test_a_session_that_another_process_turned(desk: Desk, other: Desk) -> None:
    made = of_ann(desk)
    clock(desk).pass_s(60)
    turned = rotation.turn(other.gov, "default", reason="now", by=ANN)
    run, _ = arrived(desk, made)
    assert isinstance(run, Admitted)
    assert run.ref.session_id == turned.id
    desk.finish(run)
    intact(desk)


def test_a_switch_that_another_process_engaged(desk: Desk, other: Desk) -> None:
    stopped = of_ann(desk)
    switches.engage(other.gov, Scope.AGENT, "desk-1", mode=Mode.KILL, reason="it lies", by=ANN)
    assert isinstance(arrived(desk, stopped)[0], Cancelled)
    intact(desk)


def test_an_earlier_hour_has_its_own_session(desk: Desk) -> None:
    """A machine whose clock was set back decides by what was in force then."""
    clock(desk).pass_s(-3600)
    run, _ = arrived(desk, of_ann(desk))
    assert isinstance(run, Admitted)
    before = run.ref.session_id
    desk.finish(run)
    clock(desk).pass_s(3600)
    run, _ = arrived(desk, of_ann(desk))
    assert isinstance(run, Admitted)
    assert run.ref.session_id != before
    desk.finish(run)
    intact(desk)


ROWS: list[Callable[[int], tuple[str, Any]]] = [
    lambda now_us: ("not_before_us", now_us + HOUR_US),
    lambda now_us: ("not_before_us", now_us - HOUR_US),
    lambda now_us: ("expires_us", now_us - 1),
    lambda now_us: ("expires_us", now_us + HOUR_US),
    lambda _: ("direct", True),
    lambda _: ("published_us", None),
    lambda now_us: ("published_us", now_us + 5),
    lambda _: ("digest", "digest-2"),
    lambda _: ("state", "cancelled"),
    lambda _: ("attempt", 1),
]


@pytest.mark.parametrize("change", ROWS, ids=lambda change: "{}={}".format(*change(0)))
def test_what_the_row_says_is_answered_as_if_it_had_been_read(desk: Desk, change: Any) -> None:
    column, value = change(desk.gov.clock.now_us())
    said, read = of_ann(desk), of_ann(desk)
    desk.gov.store.run(
        f"UPDATE actions SET {column} = :value WHERE id IN (:said, :read) RETURNING id",
        {"value": value, "said": said.action_id, "read": read.action_id},
    )
    foreseen, _ = arrived(desk, said)
    gathered = desk.arrive(read, said=None)
    assert type(foreseen) is type(gathered)
    # Why it was dropped, by which rule it was denied.
    for name in ("why", "rule", "reason"):
        assert getattr(foreseen, name, None) == getattr(gathered, name, None)
    rows = [
        desk.gov.store.read("SELECT state, attempt FROM actions WHERE id = :id", {"id": made.action_id})
        for made in (said, read)
    ]
    assert rows[0] == rows[1]


def test_threads_that_share_what_is_remembered_never_overspend(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=1)), usage=Usage(0, 0))

    def ask(number: int) -> bool:
        run, _ = arrived(desk, desk.submit(stream="small", cost_micros=900, user=f"u{number}"))
        if isinstance(run, Admitted):
            desk.finish(run, usage=Usage(900, 0))
        return isinstance(run, Admitted)

    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(ask, range(40)))
    # Ten actions are let in an hour, and one was.
    assert sum(admitted) == 9
    intact(desk)
