"""Recovery: give up attempts whose process is gone, and nothing else.

A worker is suspected at the first sweep that finds its heartbeat lapsed and lost only when it stayed silent for a
further while that the sweeper itself watched: after a database outage every heartbeat is old, and the living ones come
back first. A lost pool child is reported by its living worker at once.
"""

from dataclasses import dataclass

from governance.core.actions import State
from governance.core.changes import Author, reclaimed
from governance.core.ledger import expire
from governance.operations.context import Governance
from governance.store import actions, workers
from governance.store.actions import ActionRow
from governance.store.changes import apply

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: workers newly suspected, workers given up, attempts reclaimed by the state they went to."""

    suspected: int
    lost: tuple[str, ...]
    reclaimed: dict[str, int]


def sweep(gov: Governance, actor: str) -> Swept:
    """One recovery pass over every worker, to the end, in bounded batches."""
    now_us = gov.clock.now_us()
    lease_us = gov.clock.span_us(gov.limits.lease_s)
    suspected = workers.suspect(gov.store, lapsed_before_us=now_us - lease_us, now_us=now_us)
    lost = workers.lost(gov.store, suspected_before_us=now_us - lease_us // 2)
    tally: dict[str, int] = {}
    for worker_id in lost:
        while batch := actions.leased_by(gov.store, worker_id, _BATCH):
            moved = [after for a in batch if (after := _reclaim(gov, a, f"worker {worker_id} is gone", actor))]
            for after in moved:
                tally[after] = tally.get(after, 0) + 1
            if not moved:
                break
    return Swept(suspected, tuple(lost), tally)


def child_lost(gov: Governance, action_id: str, worker_id: str, child: str, reason: str) -> State | None:
    """A living worker reports that the pool child which ran `action_id` is dead; None when it ran something else."""
    action = actions.find(gov.store, action_id)
    if (
        action is None
        or action.ref.state is not State.RUNNING
        or (action.lease_worker, action.lease_child) != (worker_id, child)
    ):
        return None
    return _reclaim(gov, action, reason, f"worker:{worker_id}")


def timed_out(gov: Governance, action_id: str, worker_id: str, reason: str) -> State | None:
    """The hard time limit killed the attempt: Celery has failed it, so it does not run again by itself."""
    action = actions.find(gov.store, action_id)
    if action is None or action.ref.state is not State.RUNNING or action.lease_worker != worker_id:
        return None
    after = State.FAILED if action.idempotent else State.IN_DOUBT
    return _give_up(gov, action, after, reason, f"worker:{worker_id}", "TimeLimitExceeded", delivered=True)


def _reclaim(gov: Governance, action: ActionRow, reason: str, actor: str) -> State | None:
    if not action.idempotent:
        after = State.IN_DOUBT
    elif action.ref.attempt >= gov.limits.attempts_max:
        after = State.FAILED
        reason = f"{reason}; it was attempt {action.ref.attempt} of at most {gov.limits.attempts_max}"
    else:
        after = State.QUEUED
    return _give_up(gov, action, after, reason, actor, "WorkerLost", delivered=False)


def _give_up(
    gov: Governance,
    action: ActionRow,
    after: State,
    reason: str,
    actor: str,
    error_type: str,
    *,
    delivered: bool,
) -> State | None:
    holds = actions.holds_of(gov.store, action.ref.id, action.ref.attempt)
    change = reclaimed(
        action.ref,
        Author(actor, gov.clock.now_us()),
        after=after,
        reason=reason,
        error_type=error_type,
        closings=expire(holds),
        delivered=delivered,
    )
    return after if apply(gov.store, change) else None
