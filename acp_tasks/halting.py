"""The worker's side of a kill switch: finds what it runs in the scope of one, nudges those bodies, and kills the
children of those that do not end within the grace.

A thread looks at the switches whenever the fleet says that one was engaged, and with every heartbeat: a worker that
missed the word stops, too. While something is being stopped it looks again and again.

A grace runs by this machine's monotonic clock from the moment the worker first sees the switch. So no clock that is
ahead or is put back, and no database that was away, takes from a body the time to clean up or keeps it alive.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from celery.worker.control import control_command

from acp_tasks import bootstrap, interrupt, offspring
from acp_tasks.heart import LostChild, find_heart
from acp_tasks.interrupt import Nudge
from acp_tasks.request import children_of, request_of
from acp_tasks.run import Halt
from governance.errors import StoreUnavailable
from governance.operations.context import Governance
from governance.operations.switches import Stopping, to_stop

log = structlog.get_logger(__name__)

COMMAND: Final = "acp_halt"
# A body that usually asks by itself has this long to ask once more; then it is interrupted like any other.
_PATIENCE_S: Final = 0.1
_LOOK_AGAIN_S: Final = 0.05
# What goes on for longer is looked at less often: the next look comes after this part of the time that has passed.
_LOOK_AGAIN_PART: Final = 0.25


@dataclass(slots=True)
class _Underway:
    """An attempt that is being stopped; instants are seconds of the monotonic clock."""

    #: When each switch that covers it was first seen, by the id of the switch.
    seen_s: dict[str, float] = field(default_factory=dict)
    #: Until when it may take to end by itself.
    until_s: float = 0.0
    nudged_s: float | None = None


class Halting:
    """Watches the switches for one worker until it is stopped."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self._wake = threading.Event()
        self._ended = False
        # What is being stopped, by (action, attempt).
        self._underway: dict[tuple[str, int], _Underway] = {}
        # What of it can be interrupted, as it was at the last look, and the request of each child then.
        self._stopping: list[Stopping] = []
        self._requests: dict[str, str | None] = {}
        # The children that a file of nudges lies there for.
        self._nudged: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="acp-halting", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(timeout=5)
        self._forget(set())

    def wake(self) -> None:
        """Look at the switches now."""
        self._wake.set()

    def _run(self) -> None:
        wait_s = 0.0
        failures = 0
        while not self._ended:
            self._wake.wait(wait_s)
            self._wake.clear()
            gov = bootstrap.governance()
            try:
                self._halt(gov)
                failures = 0
            except StoreUnavailable as problem:
                log.warning("switches not read", worker=self.worker_id, problem=str(problem))
                # What was known before it went away still stands, and so does its grace.
                self._kill_late()
            except Exception as problem:
                failures += 1
                log.error("halting failed", worker=self.worker_id, problem=repr(problem))
            wait_s = self._next_look_s(gov.limits.heartbeat_s)
            if failures:
                wait_s = min(wait_s, _LOOK_AGAIN_S * 2.0 ** min(failures, 10))

    def _next_look_s(self, heartbeat_s: float) -> float:
        """Often at first, ever less so while bodies clean up or cannot be interrupted, and when a grace ends."""
        if not self._underway:
            return heartbeat_s
        now_s = time.monotonic()
        newest_s = max(seen_s for one in self._underway.values() for seen_s in one.seen_s.values())
        left_s = [self._underway[stopping.run.key].until_s - now_s for stopping in self._stopping]
        wait_s = min((now_s - newest_s) * _LOOK_AGAIN_PART, *(one for one in left_s if one > 0), heartbeat_s)
        return max(wait_s, _LOOK_AGAIN_S)

    def _halt(self, gov: Governance) -> None:
        """One look."""
        # Before what runs is read: who is at another request afterwards has ended what was read.
        requests = {str(pid): request_of(pid) for pid in (*children_of(os.getpid()), os.getpid())}
        found = to_stop(gov, self.worker_id)
        self._note(gov, found)
        self._requests = requests
        # A thread cannot be interrupted, it can only ask; a child that is gone is recovery's.
        self._stopping = [one for one in found if one.run.child in self._requests]
        self._kill_late()
        by_child: dict[str, list[Nudge]] = {}
        for one in self._stopping:
            nudge = self._due(one)
            if nudge is not None:
                by_child.setdefault(one.run.child, []).append(nudge)
        for child, nudges in by_child.items():
            try:
                self._nudged.add(child)
                interrupt.nudge(self.worker_id, int(child), nudges)
            except ProcessLookupError:
                continue
            except OSError as problem:
                # A disk that is full or read-only: the others are nudged all the same, and the grace ends as it would.
                log.error("not interrupted", worker=self.worker_id, child=child, problem=str(problem))
        self._forget({one.run.child for one in self._stopping})

    def _forget(self, still: set[str]) -> None:
        """Removes the nudges of every other child: it has stopped, or is gone."""
        for child in self._nudged - still:
            interrupt.forget(self.worker_id, int(child))
        self._nudged &= still

    def _note(self, gov: Governance, found: list[Stopping]) -> None:
        """Keeps since when each attempt is being stopped and until when it may take, and forgets what has ended."""
        now_s = time.monotonic()
        known, self._underway = self._underway, {}
        for one in found:
            underway = self._underway[one.run.key] = known.get(one.run.key) or _Underway()
            # Of several switches the one that gives it the least time.
            underway.until_s = min(
                underway.seen_s.setdefault(switch.id, now_s) + gov.clock.real_s(switch.grace_us)
                for switch in one.covering
            )

    def _kill_late(self) -> None:
        """Kills the children that still run what should have ended by now."""
        now_s = time.monotonic()
        late = {one.run.child: one for one in self._stopping if now_s >= self._underway[one.run.key].until_s}
        for child, one in late.items():
            present = request_of(int(child))
            if child == str(os.getpid()) or present is None or present != self._requests[child]:
                # A solo worker would kill itself; a child that is between two messages, or at the next one, has ended
                # what it ran.
                continue
            log.warning("killed after its grace", worker=self.worker_id, child=child, action=one.run.action_id)
            offspring.kill_group(int(child))
            self._stopping = [other for other in self._stopping if other.run.child != child]
            heart = find_heart()
            if offspring.has_ended(int(child)) and heart is not None:
                # The pool notices within a second; what the child held is known to be over now.
                heart.report(LostChild(child, f"killed after the grace of {one.switch.rule}"))

    def _due(self, one: Stopping) -> Nudge | None:
        """The nudge that this attempt is to get now, if any: a first one, then a final one every little while."""
        underway = self._underway[one.run.key]
        before_s, now_s = underway.nudged_s, time.monotonic()
        if before_s is not None and now_s - before_s < _PATIENCE_S:
            return None
        underway.nudged_s = now_s
        return Nudge(*one.run.key, Halt(one.switch.rule, one.switch.reason), final=before_s is not None)


_halting: Halting | None = None


def start_halting(worker_id: str) -> None:
    """Starts this worker's watch over the switches."""
    global _halting
    _halting = Halting(worker_id)
    _halting.start()


def stop_halting() -> None:
    global _halting
    if _halting is not None:
        _halting.stop()
        _halting = None


@control_command(name=COMMAND)
def acp_halt(_state: Any) -> dict[str, Any]:
    """Look at the kill switches now."""
    if _halting is None:
        return {"error": "this worker has no governed tasks"}
    _halting.wake()
    return {"ok": _halting.worker_id}
