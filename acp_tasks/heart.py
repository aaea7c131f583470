"""The heartbeat of a process that runs actions: one thread, one row, whatever the number of actions.

Every beat first brings back what is waiting on this machine (spooled finishes, children found dead while the store was
away) and only then says "alive": whoever is heard of has nothing left to tell.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from acp_tasks import bootstrap, offspring
from acp_tasks.silence import BeatWatch
from governance.errors import StoreUnavailable
from governance.operations import heartbeat
from governance.operations.context import Governance
from governance.operations.recover import bodiless, child_gone, ended_by_force
from governance.operations.resolve import revoked
from governance.operations.running import names_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LostChild:
    """A pool child that died, with whatever ran in it."""

    child: str
    reason: str

    def tell(self, gov: Governance, worker_id: str) -> None:
        for action_id, state in child_gone(gov, worker_id, self.child, self.reason):
            log.warning("child lost", child=self.child, became=state, **names_of(gov, action_id))


@dataclass(frozen=True, slots=True)
class EndedByForce:
    """An action that Celery has ended by killing its child: the hard time limit, or somebody's `terminate`."""

    action_id: str
    child: str
    error_type: str
    reason: str

    def tell(self, gov: Governance, worker_id: str) -> None:
        ended_by_force(gov, self.action_id, worker_id, self.child, self.error_type, self.reason)
        log.warning("ended by force", child=self.child, why=self.reason, **names_of(gov, self.action_id))


@dataclass(frozen=True, slots=True)
class Revoked:
    """A message that Celery threw away because somebody revoked it."""

    action_id: str

    def tell(self, gov: Governance, worker_id: str) -> None:
        revoked(gov, self.action_id, f"worker:{worker_id}")
        log.warning("revoked", **names_of(gov, self.action_id))


Report: TypeAlias = LostChild | EndedByForce | Revoked
# Each pool child and the instant its present request began, None when it has none; None: not to be told now.
Children: TypeAlias = Callable[[], Mapping[str, int | None] | None]
# What the process is there for, as it is now; None of one that is no worker.
Posted: TypeAlias = Callable[[], heartbeat.Post | None]


class Heart:
    """Beats for `worker_id` until it is stopped. Nothing that goes wrong in one step keeps it from the next."""

    def __init__(self, worker_id: str, children: Children = lambda: None, post: Posted = lambda: None) -> None:
        self.worker_id = worker_id
        self._children = children
        self._post = post
        self._stop = threading.Event()
        self._reports: deque[Report] = deque()
        self._telling = threading.Lock()
        self._watch: BeatWatch | None = None
        self._ready_us: int | None = None
        self._thread = threading.Thread(target=self._run, name="acp-heart", daemon=True)

    def start(self) -> None:
        self._beat()
        self._thread.start()

    def ready(self) -> None:
        """Says that the worker takes traffic from now on. Raises StoreUnavailable."""
        self._ready_us = heartbeat.ready(bootstrap.governance(), self.worker_id)

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

    def report(self, report: Report) -> None:
        """Told now if the store is there, else with the next beat that finds it. Never raises: Celery has to go on."""
        if isinstance(report, LostChild | EndedByForce) and report.child.isdigit():
            # Once, and now: by the time that the store is back the number may be somebody else's.
            offspring.kill_group(int(report.child))
        self._reports.append(report)
        try:
            self._tell(bootstrap.parts())
        except Exception as problem:
            log.warning("not reported yet", report=repr(report), problem=repr(problem))

    def _run(self) -> None:
        while not self._stop.wait(bootstrap.parts().gov.limits.heartbeat_s):
            self._beat()

    def _beat(self) -> None:
        parts = bootstrap.parts()
        for step in (self._tell, self._drain, self._give_up, self._say_alive, self._look_for_beat):
            try:
                step(parts)
            except StoreUnavailable as problem:
                log.warning("no heartbeat", worker=self.worker_id, problem=str(problem))
                return
            except Exception as problem:
                log.error("heartbeat step failed", step=step.__name__, worker=self.worker_id, problem=repr(problem))

    def _tell(self, parts: bootstrap.Parts) -> None:
        with self._telling:
            while self._reports:
                self._reports[0].tell(parts.gov, self.worker_id)
                self._reports.popleft()

    def _drain(self, parts: bootstrap.Parts) -> None:
        parts.spool.drain(parts.gov)

    def _give_up(self, parts: bootstrap.Parts) -> None:
        children = self._children()
        if children is None:
            return
        settled_us = parts.gov.clock.now_us() - parts.gov.clock.span_us(parts.gov.limits.lease_s)
        for action_id in bodiless(parts.gov, self.worker_id, children, settled_us):
            log.error("attempt without a body given up", **names_of(parts.gov, action_id))

    def _say_alive(self, parts: bootstrap.Parts) -> None:
        post = self._post()
        if not heartbeat.beat(parts.gov, self.worker_id, post.slots if post else None):
            heartbeat.register(parts.gov, self.worker_id, os.getpid(), post, self._ready_us)

    def _look_for_beat(self, parts: bootstrap.Parts) -> None:
        if self.worker_id.startswith(bootstrap.DIRECT):
            return
        if self._watch is None:
            self._watch = BeatWatch(parts.gov.clock.now_us())
        self._watch.look(parts)


_heart: Heart | None = None
_heart_pid = 0
_starting = threading.Lock()


def start_heart(worker_id: str, children: Children = lambda: None, post: Posted = lambda: None) -> Heart:
    """Starts this process's heart."""
    global _heart, _heart_pid
    _heart, _heart_pid = Heart(worker_id, children, post), os.getpid()
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
