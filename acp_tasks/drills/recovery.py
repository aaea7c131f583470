"""The recovery drill: a worker's pool children are killed under two actions, and recovery has to find it.

The canaries do it to the child that runs them, on the worker's own machine. One of them may run twice and has to; the
other one must not, and has to come into doubt, which the drill then resolves itself.
"""

import time
from typing import Any, Final

from celery import Celery

from acp_tasks.drills.clearing import clear
from acp_tasks.drills.kill import Said
from acp_tasks.drills.lanes import Pool, lanes, pools
from acp_tasks.stop import agent_workers, node_of
from governance.core.actions import TERMINAL, State
from governance.core.drill_verdicts import judge_recovery
from governance.core.drills import EventRange, Findings, RecoveryPlan
from governance.errors import StateConflict
from governance.operations.context import Governance
from governance.operations.drills import DRILL, FALL, FALL_ONCE, Drill, states, trail
from governance.operations.resolve import resolve

_POLL_S: Final = 0.1
# A small worker that does beat's jobs as well is full now and then, for a moment.
_ROOM_S: Final = 10.0
# Beyond the threshold, so that what comes late is measured and not only missed.
_PATIENCE_S: Final = 30.0


def drill_recovery(app: Celery, gov: Governance, drill: Drill, *, said: Said) -> tuple[Findings, list[EventRange]]:
    """Runs the exercise and judges it by its trail. Raises StoreUnavailable, and what a broker that is away raises."""
    worker, problem = _worker(app, gov)
    sent: list[str] = []
    if worker is not None:
        with lanes(app, drill.id, [node_of(worker)]) as queues:
            try:
                for name in (FALL, FALL_ONCE):
                    task: Any = app.tasks[name]
                    action = task.apply_async(stream=drill.session.stream, queue=queues[node_of(worker)])
                    sent.append(str(action.id))
                said(f"two actions sent to {worker}, each kills the child that runs it")
                _wait(gov, sent, drill.threshold_ms / 1000 + _PATIENCE_S)
            finally:
                _resolve(gov, drill, sent)
                clear(app, gov, drill.session.id, sent)
    seen = trail(gov, drill.session.id)
    plan = RecoveryPlan(worker, problem, *(sent or (None, None)))
    return judge_recovery(plan, seen, drill.threshold_ms), [seen.evidence] if seen.evidence is not None else []


def _worker(app: Celery, gov: Governance) -> tuple[str | None, str]:
    """The worker to lose two children: the one with the most room. Else why there is none."""
    workers = agent_workers(gov)
    if not workers:
        return None, "there is no live worker: start one, then run the drill again"
    deadline_s = time.monotonic() + _ROOM_S
    while True:
        found = pools(app, [node_of(worker) for worker in workers])
        room = {worker: _room(found.get(node_of(worker))) for worker in workers}
        able = max(workers, key=lambda worker: room[worker])
        if room[able]:
            return able, ""
        if time.monotonic() > deadline_s or not any(pool.interruptible for pool in found.values()):
            return None, "no live worker answered that has a pool of processes and a free slot in it"
        time.sleep(_POLL_S)


def _room(pool: Pool | None) -> int:
    """Free slots, which are taken for a moment only. In a pool of processes alone does a child die by itself."""
    return pool.slots - pool.busy if pool is not None and pool.interruptible else 0


def _wait(gov: Governance, sent: list[str], seconds: float) -> None:
    settled = (*TERMINAL, State.IN_DOUBT)
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s and any(state not in settled for state in states(gov, sent).values()):
        time.sleep(_POLL_S)


def _resolve(gov: Governance, drill: Drill, sent: list[str]) -> None:
    for action_id, state in states(gov, sent).items():
        if state is State.IN_DOUBT:
            try:
                reason = f"recovery drill {drill.id}: it killed its own process and did nothing else"
                resolve(gov, action_id, outcome="failed", by=DRILL, reason=reason, command_id=None)
            except StateConflict:
                # Somebody saw it and was faster.
                continue
