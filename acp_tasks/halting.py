"""The worker's side of a kill switch: finds what it runs in the scope of one, nudges those bodies, and kills the
children of those that do not end within the grace.

A thread looks at the switches whenever the fleet says that one was engaged, and with every heartbeat: a worker that
missed the word stops, too. While something is being stopped it looks again and again.
"""

import os
import threading
from contextlib import suppress
from typing import Any, Final

import structlog
from celery.worker.control import control_command

from acp_tasks import bootstrap, interrupt, offspring
from acp_tasks.heart import LostChild, find_heart
from acp_tasks.interrupt import Nudge
from acp_tasks.request import children_of, works_on
from acp_tasks.run import Halt
from governance.errors import StoreUnavailable
from governance.operations.context import Governance
from governance.operations.switches import Stopping, to_stop

log = structlog.get_logger(__name__)

COMMAND: Final = "acp_halt"
# A body that usually asks by itself has this long to ask once more; then it is interrupted like any other.
_PATIENCE_S: Final = 0.1
_LOOK_AGAIN_S: Final = 0.05


class Halting:
    """Watches the switches for one worker until it is stopped."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self._wake = threading.Event()
        self._ended = False
        # When each attempt was nudged last, by (action, attempt).
        self._nudged: dict[tuple[str, int], int] = {}
        # What was to be stopped at the last look.
        self._stopping: list[Stopping] = []
        self._thread = threading.Thread(target=self._run, name="acp-halting", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(timeout=5)

    def wake(self) -> None:
        """Look at the switches now."""
        self._wake.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._ended:
            self._wake.wait(wait_s)
            self._wake.clear()
            gov = bootstrap.governance()
            wait_s = gov.limits.heartbeat_s
            try:
                if self._halt(gov):
                    wait_s = _LOOK_AGAIN_S
            except StoreUnavailable as problem:
                log.warning("switches not read", worker=self.worker_id, problem=str(problem))
                if self._stopping:
                    # What was known before it went away still stands, and so does its grace.
                    self._kill_late(gov)
                    wait_s = _LOOK_AGAIN_S
            except Exception as problem:
                log.error("halting failed", worker=self.worker_id, problem=repr(problem))

    def _halt(self, gov: Governance) -> bool:
        """One look; whether something is still to be stopped."""
        found = to_stop(gov, self.worker_id)
        # A thread cannot be interrupted, it can only ask; a child that is gone is recovery's.
        children = {str(pid) for pid in (*children_of(os.getpid()), os.getpid())}
        self._stopping = [one for one in found if one.run.child in children]
        self._kill_late(gov)
        now_us = gov.clock.now_us()
        by_child: dict[str, list[Nudge]] = {}
        for one in self._stopping:
            nudge = self._due(one, now_us, gov)
            if nudge is not None:
                by_child.setdefault(one.run.child, []).append(nudge)
        for child, nudges in by_child.items():
            with suppress(ProcessLookupError):
                interrupt.nudge(int(child), nudges)
        for key in self._nudged.keys() - {(one.run.action_id, one.run.attempt) for one in found}:
            del self._nudged[key]
        return bool(found)

    def _kill_late(self, gov: Governance) -> None:
        """Kills the children that still run what should have ended by now."""
        now_us = gov.clock.now_us()
        late = {one.run.child: one for one in self._stopping if now_us >= one.until_us}
        for child, one in late.items():
            if child == str(os.getpid()) or not works_on(int(child)):
                # A solo worker would kill itself; a child that is between two messages has ended what it ran.
                continue
            log.warning("killed after its grace", worker=self.worker_id, child=child, action=one.run.action_id)
            offspring.kill_group(int(child))
            self._stopping = [other for other in self._stopping if other.run.child != child]
            heart = find_heart()
            if offspring.has_ended(int(child)) and heart is not None:
                # The pool notices within a second; what the child held is known to be over now.
                heart.report(LostChild(child, f"killed after the grace of {one.switch.rule}"))

    def _due(self, one: Stopping, now_us: int, gov: Governance) -> Nudge | None:
        """The nudge that this attempt is to get now, if any: a first one, then a final one every little while."""
        key = (one.run.action_id, one.run.attempt)
        before_us = self._nudged.get(key)
        if before_us is not None and now_us - before_us < gov.clock.span_us(_PATIENCE_S):
            return None
        self._nudged[key] = now_us
        return Nudge(*key, Halt(one.switch.rule, one.switch.reason), final=before_us is not None)


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
