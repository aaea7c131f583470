"""Whom the end of a grace kills: the child that still runs what was to stop, and nobody who is at something else."""

import subprocess
from collections.abc import Iterator

import pytest
from celery.worker import state

from acp_tasks.halting import Halting, _Underway
from governance.core.switches import EVERYTHING, Mode, Scope, Switch
from governance.operations.switches import RunningAction, Stopping

SWITCH = Switch("s", Scope.SYSTEM, EVERYTHING, Mode.KILL, "no", 0, 0)


class Request:
    """What the worker's main process knows of a message that a child has accepted."""

    def __init__(self, id_: str, worker_pid: int) -> None:
        self.id, self.worker_pid = id_, worker_pid


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("then", "now", "killed"),
    [
        ("late", "late", True),
        ("outer", "outer", True),
        ("late", "another", False),
        ("late", None, False),
        (None, None, False),
    ],
)
def test_who_is_at_another_message_by_now_is_left_alone(
    child: subprocess.Popen[bytes], then: str | None, now: str | None, killed: bool
) -> None:
    run = RunningAction("late", 1, "case.reply", "w", str(child.pid))
    halting = Halting("w")
    halting._stopping = [Stopping(run, SWITCH, (SWITCH,))]
    halting._underway[run.key] = _Underway()
    halting._requests[run.child] = then
    present = Request(now or "", child.pid)
    if now is not None:
        state.active_requests.add(present)
    try:
        halting._kill_late()
    finally:
        state.active_requests.discard(present)
    assert (child.poll() is not None) == killed
