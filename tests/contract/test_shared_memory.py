"""What a process remembers is of one epoch, also where one of its threads moves on while another still remembers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from governance.core.budgets import Payer
from governance.operations import audit, budgets, rotation
from governance.operations.answers import Admitted
from governance.operations.reconcile import reconcile
from governance.operations.switches import board_now
from tests.support.charged import BUDGETS, accounts, clock
from tests.support.governed import ANN, POLICY, Desk, make_governance


class Overtaken(dict[Any, Any]):
    """Before anything is kept in it the first time, another thread gets to run."""

    def __init__(self, other_thread: Callable[[], object]) -> None:
        super().__init__()
        self._other_thread: Callable[[], object] | None = other_thread

    def __setitem__(self, key: Any, value: Any) -> None:
        other_thread, self._other_thread = self._other_thread, None
        if other_thread is not None:
            other_thread()
        super().__setitem__(key, value)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    # Something was set and seen before.
    config = {"identity": {"user": "nobody"}, "period": "daily", "max_tokens": 1}
    budgets.set_budget(gov, "first", config, by=ANN, reason="x")
    yield Desk(gov)
    gov.store.close()


def another_process(desk: Desk, change: Callable[[Any], object]) -> Callable[[], object]:
    """It changes something, and a thread of this one sees that."""

    def changes() -> None:
        change(replace(desk.gov, sessions={}, boards=[], charges={}, payers={}))
        board_now(desk.gov)

    return changes


def test_a_budget_that_is_set_while_a_thread_looks_for_those_of_before_is_charged(desk: Desk) -> None:
    def more(gov: Any) -> None:
        config = {"identity": {"user": "ann"}, "period": "daily", "max_tokens": 100}
        budgets.set_budget(gov, "more", config, by=ANN, reason="x")

    board_now(desk.gov)
    desk.gov = replace(desk.gov, charges=Overtaken(another_process(desk, more)))
    for _ in range(2):
        made = desk.submit(user="ann", tokens=10, cost_micros=0)
        assert isinstance(desk.arrive(made, payer=Payer("ann", None, None, None, "default")), Admitted)
    assert accounts(desk)["more:daily:user=ann tokens"] == (100, 0, 20)
    assert reconcile(desk.gov).findings == ()


def test_nothing_is_admitted_to_a_session_that_was_turned_while_a_thread_looked_for_it(desk: Desk) -> None:
    made = [desk.submit(user="ann") for _ in range(2)]
    board_now(desk.gov)
    desk.gov.sessions.clear()
    turn = another_process(desk, lambda gov: rotation.turn(gov, "default", reason="x", by=ANN))
    desk.gov = replace(desk.gov, sessions=Overtaken(turn))
    clock(desk).pass_s(60)
    runs = [desk.admitted(one) for one in made]
    ((turned,),) = desk.gov.store.read("SELECT session_id FROM events WHERE kind = 'session.turned'", {})
    assert all(run.ref.session_id != turned for run in runs)
    assert audit.verify(desk.gov).problems == ()
