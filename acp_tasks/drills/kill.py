"""The kill drill: canaries on every live worker, one switch on their session, and the time until all have stopped.

It takes what is free of each worker, and leaves a busy one a slot. Beside the canaries, in a session that the switch
does not cover, every worker has a bystander, which must come to its end although the canaries are stopped.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from celery import Celery

from acp_tasks.drills.canary import Manner
from acp_tasks.drills.clearing import clear
from acp_tasks.drills.lanes import Pool, lanes, pools
from acp_tasks.stop import agent_workers, node_of, stop
from governance.core.actions import TERMINAL, State
from governance.core.drill_verdicts import judge_kill
from governance.core.drills import EventRange, Findings, KillPlan, Placed
from governance.core.instants import SECOND_US
from governance.core.sessions import Session
from governance.core.switches import Mode, Scope
from governance.operations.context import Governance
from governance.operations.drills import (
    BYSTANDER,
    CANARY,
    DRILL,
    Drill,
    ended_elsewhere,
    open_beside,
    states,
    trail,
)

Said = Callable[[str], None]

#: How long canaries may wait for a slot, in real seconds.
START_S: Final = 10.0
# Long enough for a bystander to be at work when the switch is engaged, and to go on after it.
_BYSTANDER_S: Final = 2.0
_BYSTANDERS_START_S: Final = 1.0
_SETTLE_S: Final = 15.0
# What a worker finds later than that is of no use to the drill.
_MESSAGE_S: Final = 60.0
_POLL_S: Final = 0.05


@dataclass(slots=True)
class _Tried:
    """What the drill has done so far; whatever goes wrong, the clearing up works from it."""

    problems: dict[str, str] = field(default_factory=dict)
    canaries: list[Placed] = field(default_factory=list)
    latecomers: list[str] = field(default_factory=list)
    bystanders: list[Placed] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)


def drill_kill(
    app: Celery, gov: Governance, drill: Drill, *, said: Said, start_s: float = START_S
) -> tuple[Findings, list[EventRange]]:
    """Runs the exercise and judges it by its trail. Raises StoreUnavailable, and what a broker that is away raises."""
    beside = open_beside(gov, drill, "bystanders")
    workers = agent_workers(gov)
    found = pools(app, [node_of(worker) for worker in workers])
    tried = _Tried({worker: "it did not answer" for worker in workers if node_of(worker) not in found})
    exercise = _Exercise(app, gov, drill, beside, found, tried)
    with lanes(app, drill.id, [node_of(worker) for worker in workers if worker not in tried.problems]) as queues:
        try:
            exercise.run([worker for worker in workers if worker not in tried.problems], queues, said, start_s)
        finally:
            clear(app, gov, drill.session.id, [one.action_id for one in tried.canaries] + tried.latecomers)
            clear(app, gov, beside.id, [one.action_id for one in tried.bystanders])
    stopped, untouched = trail(gov, drill.session.id), trail(gov, beside.id)
    plan = KillPlan(
        workers=tuple(workers),
        problems=tried.problems,
        canaries=tuple(tried.canaries),
        bystanders=tuple(tried.bystanders),
        latecomers=tuple(tried.latecomers),
        acknowledged=len(tried.acknowledged.intersection(workers)),
        cancelled_elsewhere=ended_elsewhere(gov, stopped),
    )
    evidence = [part for one in (stopped, untouched) if (part := one.evidence) is not None]
    return judge_kill(plan, stopped, untouched, drill.threshold_ms), evidence


@dataclass(frozen=True, slots=True)
class _Exercise:
    """The drill's steps, on the live fleet."""

    app: Celery
    gov: Governance
    drill: Drill
    beside: Session
    pools: Mapping[str, Pool]
    tried: _Tried

    def run(self, workers: Sequence[str], queues: Mapping[str, str], said: Said, start_s: float) -> None:
        for worker in workers:
            for manner in _manners(self.pools[node_of(worker)]):
                action_id = self._send(CANARY, {"manner": str(manner)}, self.drill.session, queues[node_of(worker)])
                self.tried.canaries.append(Placed(action_id, worker))
        said(f"{len(self.tried.canaries)} canaries sent to {len(workers)} workers")
        at_work = self._wait_for_canaries(workers, start_s)
        if not at_work:
            return
        late = [worker for worker in at_work if self.pools[node_of(worker)].crowded]
        self._send_bystanders([worker for worker in at_work if worker not in late], queues)
        said("engaging the switch of their session")
        report = stop(
            self.app,
            self.gov,
            Scope.SESSION,
            self.drill.session.id,
            mode=Mode.KILL,
            reason=f"kill drill {self.drill.id}",
            by=DRILL,
            said=said,
        )
        self.tried.acknowledged.update(report.acknowledged)
        for worker in at_work:
            arguments: dict[str, object] = {"manner": str(Manner.COOPERATIVE)}
            self.tried.latecomers.append(self._send(CANARY, arguments, self.drill.session, queues[node_of(worker)]))
        self._send_bystanders(late, queues)
        left = [one.action_id for one in self.tried.bystanders] + self.tried.latecomers
        said("the canaries have had their time; waiting for the bystanders and for who came late")
        self._until(lambda found: all(state in TERMINAL for state in found), left, _SETTLE_S)

    def _wait_for_canaries(self, workers: Sequence[str], start_s: float) -> list[str]:
        """The workers on which one runs; the others have a problem."""
        ids = [placed.action_id for placed in self.tried.canaries]
        self._until(lambda found: all(state is not State.QUEUED for state in found), ids, start_s)
        now = states(self.gov, ids)
        for worker in workers:
            became = {now[placed.action_id] for placed in self.tried.canaries if placed.worker_id == worker}
            if State.RUNNING not in became:
                pool = self.pools[node_of(worker)]
                what = "it had no free slot" if pool.busy >= pool.slots else "it took no canary"
                waited = f"{what} within {start_s:g} s ({pool.busy} of {pool.slots} slots were busy)"
                ended = f"its canaries are {', '.join(sorted(became))} before they were stopped"
                self.tried.problems[worker] = waited if became == {State.QUEUED} else ended
        at_work = set(workers) - self.tried.problems.keys()
        return [worker for worker in workers if worker in at_work]

    def _send_bystanders(self, workers: Sequence[str], queues: Mapping[str, str]) -> None:
        """Where a slot is left they are at work when this returns, else they wait for one."""
        until_us = self.gov.clock.now_us() + self.gov.clock.span_us(_BYSTANDER_S)
        at_once = []
        for worker in workers:
            action_id = self._send(BYSTANDER, {"until_us": until_us}, self.beside, queues[node_of(worker)])
            self.tried.bystanders.append(Placed(action_id, worker))
            pool = self.pools[node_of(worker)]
            if pool.room > len(_manners(pool)):
                at_once.append(action_id)
        self._until(lambda found: all(state is not State.QUEUED for state in found), at_once, _BYSTANDERS_START_S)

    def _send(self, name: str, arguments: dict[str, object], session: Session, queue: str) -> str:
        expires_s = self.gov.clock.span_us(_MESSAGE_S) / SECOND_US
        task: Any = self.app.tasks[name]
        sent = task.apply_async(kwargs=arguments, stream=session.stream, queue=queue, expires=expires_s)
        return str(sent.id)

    def _until(self, seen: Callable[[Sequence[State]], bool], action_ids: Sequence[str], seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while not seen(list(states(self.gov, action_ids).values())) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)


def _manners(pool: Pool) -> tuple[Manner, ...]:
    """The canaries for a pool: one, or one of each kind where that leaves a busy pool room for the bystander."""
    if not pool.interruptible or pool.room < 2 or pool.crowded:
        return (Manner.COOPERATIVE,)
    return (Manner.COOPERATIVE, Manner.INTERRUPTIBLE)
