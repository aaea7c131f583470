"""The heartbeat of a process that runs actions: one thread, one row, whatever the number of actions.

Every beat first brings back what is waiting on this machine (spooled finishes, children found dead while the store was
away) and only then says "alive": whoever is heard of has nothing left to tell.
"""

import os
import threading
from collections import deque
from dataclasses import dataclass

import structlog

from acp_tasks import bootstrap
from governance.errors import GovernanceError, StoreUnavailable
from governance.operations import heartbeat
from governance.operations.recover import child_lost

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LostChild:
    """A pool child that died while it ran an action."""

    action_id: str
    child: str
    reason: str


class Heart:
    """Beats for `worker_id` until it is stopped."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self._stop = threading.Event()
        self._registered = False
        self._lost: deque[LostChild] = deque()
        self._thread = threading.Thread(target=self._run, name="acp-heart", daemon=True)

    def start(self) -> None:
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Says goodbye: whatever this worker still holds may be reclaimed at once."""
        self._stop.set()
        self._thread.join(timeout=10)
        parts = bootstrap.parts()
        try:
            self._tell(parts)
            heartbeat.goodbye(parts.gov, self.worker_id)
        except StoreUnavailable as problem:
            log.warning("goodbye not written", worker=self.worker_id, problem=str(problem))

    def report(self, lost: LostChild) -> None:
        """Reclaims what a dead child ran, now if the store is there, else with the next beat that finds it."""
        self._lost.append(lost)
        try:
            self._tell(bootstrap.parts())
        except StoreUnavailable as problem:
            log.warning("lost child not reported yet", action=lost.action_id, problem=str(problem))

    def _run(self) -> None:
        while not self._stop.wait(bootstrap.parts().gov.limits.heartbeat_s):
            self._beat()

    def _beat(self) -> None:
        parts = bootstrap.parts()
        try:
            self._tell(parts)
            parts.spool.drain(parts.gov)
            if self._registered:
                heartbeat.beat(parts.gov, self.worker_id)
            else:
                heartbeat.register(parts.gov, self.worker_id, os.getpid())
                self._registered = True
        except StoreUnavailable as problem:
            log.warning("no heartbeat", worker=self.worker_id, problem=str(problem))
        except (GovernanceError, OSError, ValueError) as problem:
            # A note that cannot be applied must not stop the heart; it stays where it is and is reported every beat.
            log.error("heartbeat failed", worker=self.worker_id, problem=repr(problem))

    def _tell(self, parts: bootstrap.Parts) -> None:
        while self._lost:
            lost = self._lost[0]
            state = child_lost(parts.gov, lost.action_id, self.worker_id, lost.child, lost.reason)
            log.warning("child lost", action=lost.action_id, child=lost.child, became=state)
            self._lost.popleft()


_heart: Heart | None = None
_heart_pid = 0
_starting = threading.Lock()


def start_heart(worker_id: str) -> Heart:
    """Starts this process's heart."""
    global _heart, _heart_pid
    _heart, _heart_pid = Heart(worker_id), os.getpid()
    _heart.start()
    return _heart


def find_heart() -> Heart | None:
    """This process's heart; a forked child has none."""
    return _heart if _heart_pid == os.getpid() else None


def stop_heart() -> None:
    """Stops this process's heart, if it has one."""
    global _heart
    heart = find_heart()
    if heart is not None:
        heart.stop()
        _heart = None


def keep_alive() -> None:
    """Makes sure that somebody beats for what this process runs by itself; a worker's processes have their worker."""
    if bootstrap.worker_id() is not None or find_heart() is not None:
        return
    with _starting:
        if find_heart() is None:
            start_heart(bootstrap.lease().worker_id)
