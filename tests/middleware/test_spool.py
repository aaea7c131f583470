"""What could not be written is kept on disk and applied once, whatever happened meanwhile."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.core.actions import Lease
from governance.core.ledger import Usage
from governance.errors import AdmissionUncertain, StateDirUnusable, StoreUnavailable
from governance.middleware import DEFAULT, compose
from governance.middleware.call import Call, Failed, Returned, StoreAway
from governance.middleware.spool import Spool
from governance.operations import audit
from governance.operations.admit import Arrival
from governance.operations.context import Governance
from governance.operations.finish import Finish, Raised, Succeeded, finish
from governance.operations.recover import child_gone
from tests.support.governed import LEASE, Desk, make_governance


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url)
    yield Desk(gov)
    gov.store.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def ending(desk: Desk, **changes: object) -> Finish:
    run = desk.admitted(desk.submit(cost_micros=500))
    values = {
        "ref": run.ref,
        "holds": run.holds,
        "outcome": Succeeded('"kept"'),
        "usage": Usage(cost_micros=7, tokens=1),
        "actor": "worker:w",
        "at_us": desk.gov.clock.now_us(),
        **changes,
    }
    return Finish(**values)  # type: ignore[arg-type]


def test_a_kept_finish_is_applied_as_it_would_have_been(desk: Desk, spool: Spool) -> None:
    spool.keep(ending(desk))
    assert len(spool) == 1
    assert spool.drain(desk.gov) == 1
    assert len(spool) == 0
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 7, "held": 0}
    assert desk.gov.store.read("SELECT result FROM actions", {})[0][0] == '"kept"'
    assert audit.verify(desk.gov).problems == ()


def test_a_kept_finish_counts_once_however_often_it_is_drained(desk: Desk, spool: Spool) -> None:
    kept = ending(desk, outcome=Raised("ValueError", "no"))
    for _ in range(3):
        spool.keep(kept)
        spool.drain(desk.gov)
    assert desk.account("cost_micros")["posted"] == 7
    assert audit.verify(desk.gov).problems == ()


def test_a_kept_finish_of_a_fenced_attempt_changes_nothing(desk: Desk, spool: Spool) -> None:
    kept = ending(desk)
    spool.keep(kept)
    child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    spool.drain(desk.gov)
    assert desk.gov.store.read("SELECT state, result FROM actions", {}) == [("queued", None)]
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 500, "held": 0}


def test_an_admission_whose_answer_was_lost_is_given_back(desk: Desk, spool: Spool) -> None:
    made = desk.submit(cost_micros=500)
    desk.admitted(made)
    spool.give_back(made.action_id, LEASE, desk.gov.clock.now_us())
    spool.drain(desk.gov)
    assert desk.state(made) == "queued"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 0, "held": 0}
    assert audit.verify(desk.gov).problems == ()


@pytest.mark.parametrize(("lease", "shift_us"), [(Lease("worker-1", "another"), 0), (LEASE, 1)])
def test_another_admission_is_not_given_back(desk: Desk, spool: Spool, lease: Lease, shift_us: int) -> None:
    made = desk.submit()
    desk.admitted(made)
    spool.give_back(made.action_id, lease, desk.gov.clock.now_us() + shift_us)
    spool.drain(desk.gov)
    assert desk.state(made) == "running"


def test_a_note_that_makes_no_sense_is_set_aside(desk: Desk, spool: Spool) -> None:
    (spool.folder / "a.json").write_text("")
    (spool.folder / "b.json").write_text('{"finish": {}}')
    spool.keep(ending(desk))
    assert spool.drain(desk.gov) == 1
    assert sorted(path.name for path in spool.folder.glob("*.bad")) == ["a.bad", "b.bad"]
    assert len(spool) == 0


@pytest.mark.parametrize("text", ["a\x00b", "\ud83d"])
def test_an_outcome_no_database_keeps_still_ends_the_attempt(desk: Desk, spool: Spool, text: str) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE)
    outcome = compose(DEFAULT, call, lambda: Failed(ValueError(text), Raised("ValueError", text)))
    assert isinstance(outcome, Failed)
    assert desk.state(made) == "failed"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 500, "held": 0}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirUnusable, match=r"file/spool cannot be written.*ACP_STATE_DIR"):
        Spool(tmp_path / "file" / "spool")


def test_a_body_runs_once_and_its_end_is_kept_when_the_store_goes_away(
    desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE)
    ran: list[int] = []

    def body() -> Returned:
        ran.append(1)
        call.reported.cost_micros = 3
        monkeypatch.setattr(type(desk.gov.store), "run", away)
        monkeypatch.setattr(type(desk.gov.store), "statement", away)
        monkeypatch.setattr(type(desk.gov.store), "transaction", away)
        return Returned("value", Succeeded('"value"'))

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the test's", "it is away")

    monkeypatch.setattr("governance.middleware.settlement._ATTEMPTS", 2)
    outcome = compose(DEFAULT, call, body)
    monkeypatch.undo()
    assert outcome == Returned("value", Succeeded('"value"'), recorded=False)
    assert ran == [1]
    assert desk.state(made) == "running"
    assert spool.drain(desk.gov) == 1
    assert desk.state(made) == "succeeded"
    assert desk.account("cost_micros")["posted"] == 3


class TimeIsUp(Exception):
    """What a time limit raises, anywhere."""


def test_a_time_limit_during_admission_gives_the_attempt_back(
    desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE, (TimeIsUp,))

    def admitted_then_interrupted(*_: object) -> None:
        desk.admitted(made)
        raise TimeIsUp

    def body() -> Returned:
        raise AssertionError("the body ran")

    monkeypatch.setattr("governance.middleware.admission.admit", admitted_then_interrupted)
    assert isinstance(compose(DEFAULT, call, body), StoreAway)
    assert desk.state(made) == "queued"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 0, "held": 0}


@pytest.mark.parametrize("written", [True, False])
def test_a_time_limit_during_the_finish_settles_once(
    desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE, (TimeIsUp,))

    def interrupted(gov: Governance, ending: Finish) -> None:
        if written:
            finish(gov, ending)
        raise TimeIsUp

    monkeypatch.setattr("governance.middleware.settlement.finish", interrupted)
    assert isinstance(compose(DEFAULT, call, lambda: Returned(1, Succeeded("1"))), Returned)
    spool.drain(desk.gov)
    assert desk.state(made) == "succeeded"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 500, "held": 0}
    assert audit.verify(desk.gov).problems == ()


def test_nothing_runs_while_the_store_is_away(desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk.submit()

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the test's", "it is away")

    def body() -> Returned:
        raise AssertionError("the body ran")

    monkeypatch.setattr(type(desk.gov.store), "run", away)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE)
    assert isinstance(compose(DEFAULT, call, body), StoreAway)
    assert len(spool) == 0


@pytest.mark.parametrize("back", ["store", "disk"])
def test_an_end_that_finds_neither_store_nor_disk_is_written_as_soon_as_one_of_them_is_back(
    desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE, (TimeIsUp,))
    waited: list[float] = []

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the test's", "it is away")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            # The time limit strikes while it waits: the end is written all the same.
            raise TimeIsUp
        if back == "store":
            monkeypatch.setattr("governance.middleware.settlement.finish", finish)
        else:
            monkeypatch.setattr("os.fsync", sync)

    sync = os.fsync
    monkeypatch.setattr("governance.middleware.settlement._ATTEMPTS", 1)
    monkeypatch.setattr("governance.middleware.settlement.finish", away)
    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("governance.middleware.insistence.time.sleep", pause)
    told = compose(DEFAULT, call, lambda: Returned(1, Succeeded("1")))
    assert told == Returned(1, Succeeded("1"), recorded=back == "store")
    monkeypatch.undo()
    assert len(waited) == 2
    assert spool.drain(desk.gov) == (back == "disk")
    assert list(spool.folder.iterdir()) == []
    assert desk.state(made) == "succeeded"
    assert audit.verify(desk.gov).problems == ()


def test_an_admission_that_may_have_been_committed_is_given_back_although_the_disk_is_full(
    desk: Desk, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.submit(cost_micros=500)
    call = Call(desk.gov, spool, Arrival(made.action_id, "default", made.digest, {}, False), LEASE)

    def committed_and_unanswered(*_: object) -> None:
        desk.admitted(made)
        raise AdmissionUncertain("the test's", "it is away", desk.gov.clock.now_us())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("governance.middleware.admission.admit", committed_and_unanswered)
    monkeypatch.setattr("os.fsync", full)
    assert isinstance(compose(DEFAULT, call, lambda: Returned(1, Succeeded("1"))), StoreAway)
    assert desk.state(made) == "queued"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 0, "held": 0}
