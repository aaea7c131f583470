"""Engaging a kill switch on a fleet and seeing it through: the row, the word to the workers, what waited, what ran.

The row alone stops everything in the end; the word only makes it quick. The report says what was seen, worker by worker
and action by action, with the time from the engagement to each end.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import Celery

from acp_tasks.bootstrap import DIRECT
from acp_tasks.control_queue import works_for_agents
from acp_tasks.halting import COMMAND
from acp_tasks.publish import BROKER_ERRORS, publish
from governance.core.principals import Principal
from governance.core.switches import Mode, Scope, Switch
from governance.operations import relay
from governance.operations.clearing import cancel_waiting, cancelled_since, trail_position
from governance.operations.context import Governance
from governance.operations.processes import WorkerLine, list_workers
from governance.operations.switches import GRACE_S, AttemptEnd, RunningAction, end_of, engage, running_in

log = structlog.get_logger(__name__)

_REPLY_S: Final = 2.0
_POLL_S: Final = 0.02
_BATCH: Final = 500
# After the grace a child is killed, and its death has to reach the store.
_AFTER_GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt that ran in scope ended, and how long after the engagement; None: it runs on."""

    action_id: str
    name: str
    worker_id: str
    state: str
    after_ms: float | None


@dataclass(frozen=True, slots=True)
class StopReport:
    """What became of a stop."""

    switch_id: str
    rule: str
    mode: Mode
    engaged_us: int
    repeated: bool
    acknowledged: tuple[str, ...]
    silent: tuple[str, ...]
    cancelled: int
    ended: tuple[Ended, ...]

    @property
    def running(self) -> int:
        """How many attempts ran in scope when the switch was engaged."""
        return len(self.ended)

    @property
    def still_running(self) -> int:
        return sum(1 for one in self.ended if one.after_ms is None)

    @property
    def last_stop_ms(self) -> float | None:
        """From the engagement to the last end; None when nothing ran, or something still does."""
        spans = [one.after_ms for one in self.ended if one.after_ms is not None]
        return max(spans) if spans and not self.still_running else None


def stop(
    app: Celery,
    gov: Governance,
    scope: Scope,
    scope_id: str,
    *,
    mode: Mode,
    reason: str,
    by: Principal,
    grace_s: float = GRACE_S,
    wait: bool = True,
    said: Callable[[str], None] = lambda _: None,
) -> StopReport:
    """Engages the switch and, with `wait`, returns when everything in scope has stopped or had its grace.

    Raises InvalidOption, NotAllowed, StoreUnavailable; the workers' answers and the broker are not needed.
    """
    before = trail_position(gov)
    engaged = engage(gov, scope, scope_id, mode=mode, reason=reason, by=by, grace_s=grace_s)
    switch = engaged.switch
    said(f"engaged {switch.rule}: from here on nothing in scope starts")
    if mode is Mode.PAUSE:
        return StopReport(switch.id, switch.rule, mode, switch.engaged_us, engaged.repeated, (), (), 0, ())
    running = running_in(gov, switch)
    alive = pool_workers(gov)
    acknowledged: list[str] = []
    # Beside the rest: a broker that hangs may keep this for a while, and nothing here depends on it.
    word = threading.Thread(target=lambda: acknowledged.extend(halt(app, len(alive))), name="acp-word", daemon=True)
    if alive:
        word.start()
    cancel_waiting(gov, switch, by.actor)
    ended = _wait(gov, switch, running, grace_s + _AFTER_GRACE_S if wait else 0.0)
    if alive:
        word.join(timeout=2 * _REPLY_S)
    # What gave its attempt back meanwhile (a retry, a lost worker) waits again.
    cancel_waiting(gov, switch, by.actor)
    # By the trail: beat's sweep may have come first.
    cancelled = cancelled_since(gov, switch, before)
    _tell(app, gov)
    silent = tuple(sorted(set(alive) - set(acknowledged)))
    return StopReport(
        switch.id,
        switch.rule,
        mode,
        switch.engaged_us,
        engaged.repeated,
        tuple(sorted(acknowledged)),
        silent,
        len(cancelled - {run.action_id for run in ended if run.state in ("cancelled", "running")}),
        ended,
    )


def halt(app: Celery, workers: int) -> list[str]:
    """Has every worker look at the switches now; the ids of those that answered in time."""
    try:
        answers: list[dict[str, Any]] = (
            app.control.broadcast(COMMAND, reply=True, timeout=_REPLY_S, limit=workers) or []
        )
    except BROKER_ERRORS as problem:
        log.warning("workers not told: they look by themselves with their next heartbeat", problem=str(problem))
        return []
    return [answer["ok"] for one in answers for answer in one.values() if "ok" in answer]


def pool_workers(gov: Governance) -> list[str]:
    """The ids of the live workers; a process that runs an action by itself is none."""
    return latest_boots([worker.id for worker in _alive(gov)])


def agent_workers(gov: Governance) -> list[str]:
    """Those of `pool_workers` that take agents' actions: a control worker does not."""
    return latest_boots([worker.id for worker in _alive(gov) if works_for_agents(worker)])


def latest_boots(worker_ids: Sequence[str]) -> list[str]:
    """One id for each node, its latest: a worker that was killed and started again is known by both for a while."""
    latest: dict[str, str] = {}
    for worker in sorted(worker_ids):
        latest[node_of(worker)] = worker
    return sorted(latest.values())


def node_of(worker_id: str) -> str:
    """The Celery node name of a worker, which stays the same when it is started again."""
    return worker_id.rpartition("#")[0]


def _alive(gov: Governance) -> list[WorkerLine]:
    heard = list_workers(gov, silent_s_max=gov.limits.lease_s)
    return [worker for worker in heard if worker.alive and not worker.id.startswith(DIRECT)]


def _tell(app: Celery, gov: Governance) -> None:
    """Tells the first callers of what was cancelled while no message of it was on its way; the relay tells the rest."""
    outgoing = relay.unpublished(gov, _BATCH)
    for number, message in enumerate(outgoing):
        if not publish(app, gov, message):
            for left in outgoing[number + 1 :]:
                relay.not_published(gov, left.action_id)
            return


def _wait(gov: Governance, switch: Switch, running: list[RunningAction], seconds: float) -> tuple[Ended, ...]:
    deadline_s = time.monotonic() + seconds
    ends: dict[str, AttemptEnd] = {}
    while True:
        for run in running:
            if run.action_id not in ends and (end := end_of(gov, run)) is not None:
                ends[run.action_id] = end
        if len(ends) == len(running) or time.monotonic() >= deadline_s:
            break
        time.sleep(_POLL_S)
    return tuple(_ended(gov, switch, run, ends.get(run.action_id)) for run in running)


def _ended(gov: Governance, switch: Switch, run: RunningAction, end: AttemptEnd | None) -> Ended:
    if end is None:
        return Ended(run.action_id, run.name, run.worker_id, "running", None)
    after_ms = gov.clock.real_s(end.at_us - switch.engaged_us) * 1000
    return Ended(run.action_id, run.name, run.worker_id, end.state, round(after_ms, 1))
