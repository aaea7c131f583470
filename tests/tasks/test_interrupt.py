"""What a nudge does to the body of an attempt: it is cut where it stands, but not while it asks by itself."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from acp_tasks import bootstrap
from acp_tasks.interrupt import SIGNAL, ActionStopped, Nudge, listen, nudge
from acp_tasks.run import Halt, Run, running
from governance.middleware.call import Call
from governance.operations.admit import Arrival
from tests.support.fleet import Shop, eventually
from tests.support.governed import LEASE, Desk


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str, broker_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Without a fleet: this process is the pool child."""
    shop = Shop(tmp_path, postgres_url, broker_address)
    monkeypatch.setattr("acp_tasks.run._CHECK_EVERY_S", 0)
    # So that it is put back: a worker names itself in its environment.
    monkeypatch.setenv(bootstrap._WORKER, "")
    bootstrap.name_worker("w@shop")
    before = signal.getsignal(SIGNAL)
    listen()
    try:
        yield shop
    finally:
        signal.signal(SIGNAL, before)
        shop.close()


@pytest.fixture
def run(shop: Shop) -> Run:
    """An attempt whose body has begun."""
    desk = Desk(shop.gov)
    made = desk.submit()
    arrival = Arrival(made.action_id, made.stream, made.digest, {}, redelivered=False)
    run = Run(Call(shop.gov, bootstrap.parts().spool, arrival, LEASE, admission=desk.admitted(made)), {})
    run.begun = True
    return run


def interrupt(run: Run) -> None:
    worker_id = bootstrap.worker_id()
    assert worker_id is not None
    nudge(worker_id, os.getpid(), [Nudge(run.action_id, run.attempt, Halt("switch:system", "no"), final=True)])


def test_a_body_that_waits_for_the_answer_of_a_slow_store_is_not_cut(shop: Shop, run: Run) -> None:
    store = shop.gov.store
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def while_it_asks() -> None:
        with store.transaction() as connection:
            connection.execute(text("LOCK TABLE switches IN ACCESS EXCLUSIVE MODE"))
            locked.set()
            eventually(lambda: store.read(waiting, {})[0][0], "it waits for its answer")
            interrupt(run)
            eventually(lambda: run.halt, "the nudge has arrived")

    locked = threading.Event()
    other = threading.Thread(target=while_it_asks)
    other.start()
    assert locked.wait(30)
    with running(run):
        assert run.should_stop()
    other.join()
    assert (run.told, run.cut) == (True, False)


def test_a_body_that_does_not_ask_is_cut_once(run: Run) -> None:
    with running(run):
        with pytest.raises(ActionStopped):
            _until_cut(run)
        interrupt(run)
        assert (run.told, run.cut) == (False, True)


def _until_cut(run: Run) -> None:
    interrupt(run)
    time.sleep(30)
