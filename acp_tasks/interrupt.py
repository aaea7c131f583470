"""Stopping a body that runs: the worker says which action is to stop, in a file, and nudges its pool child.

The signal alone says nothing about whom it is meant for: by the time it arrives, the child may run another action, or
none. So the child looks for its own action in the file, and anything else goes on undisturbed.
"""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded

from acp_tasks import bootstrap
from acp_tasks.run import Halt, Run, find_run
from governance.errors import AttemptFenced

SIGNAL: Final = signal.SIGUSR2
# A body that asked `should_stop()` this recently is left to ask again, until it is nudged for the second time.
_ATTENTIVE_S: Final = 0.15


class ActionStopped(SoftTimeLimitExceeded):
    """Raised inside a body that a kill switch stops; like a soft time limit it leaves time to clean up, no more."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """One attempt that is to stop. `final`: it was nudged before and runs on."""

    action_id: str
    attempt: int
    halt: Halt
    final: bool


def heed(run: Run) -> None:
    """Ends the body here if it is to stop: ActionStopped when a kill switch covers it, AttemptFenced when it lost its
    action.
    """
    if not run.should_stop():
        return
    if run.halt is None:
        raise AttemptFenced(run.action_id, run.attempt)
    raise ActionStopped(f"{run.halt.rule}: {run.halt.reason}")


def listen() -> None:
    """Called in a pool child, in its main thread, before it runs anything."""
    signal.signal(SIGNAL, _on_signal)


def nudge(worker_id: str, child_pid: int, nudges: list[Nudge]) -> None:
    """Has a worker's pool child stop these attempts, if it still runs them. Raises ProcessLookupError, OSError."""
    path = _path(worker_id, child_pid)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(
        json.dumps([[one.action_id, one.attempt, one.halt.rule, one.halt.reason, one.final] for one in nudges])
    )
    aside.rename(path)
    os.kill(child_pid, SIGNAL)


def forget(worker_id: str, child_pid: int) -> None:
    """The child has stopped, or is gone."""
    with suppress(OSError):
        _path(worker_id, child_pid).unlink(missing_ok=True)


def _on_signal(_signum: int, _frame: FrameType | None) -> None:
    run, worker_id = find_run(), bootstrap.worker_id()
    if run is None or worker_id is None:
        return
    try:
        nudges = json.loads(_path(worker_id, os.getpid()).read_text())
    except (OSError, ValueError):
        return
    inside: list[Run] = []
    meant: Run | None = run
    while meant is not None:
        inside.append(meant)
        for action_id, attempt, rule, reason, final in nudges:
            if (action_id, attempt) == (meant.action_id, meant.attempt):
                _stop(inside, Halt(rule, reason), final=final)
        meant = meant.outer


def _stop(runs: list[Run], halt: Halt, *, final: bool) -> None:
    """Stops an action and what it calls directly, the innermost first: that is where the body stands."""
    for run in runs:
        run.halt = run.halt or halt
    innermost = runs[0]
    if innermost.told or innermost.cut or innermost.asking or not innermost.begun:
        # It knows and cleans up, or is asking, or has not begun and will look; what is left to it is the grace.
        return
    if final or time.monotonic() - innermost.asked_s > _ATTENTIVE_S:
        for run in runs:
            run.cut = True
        raise ActionStopped(f"{halt.rule}: {halt.reason}")


def _path(worker_id: str, child_pid: int) -> Path:
    """Of this worker alone: containers that share a state directory number their processes alike."""
    boot = worker_id.rpartition("#")[2]
    return bootstrap.parts().settings.state_dir / "stops" / f"{boot}-{child_pid}.json"
