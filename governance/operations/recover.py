"""Recovery: give up attempts whose process is gone, and nothing else.

A worker is suspected when its heartbeat has lapsed, and lost only when it stayed silent for a further while that the
sweeper itself watched: after a database outage every heartbeat is old, and the living ones come back first. A lost pool
child is reported by its living worker at once.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from governance.core.actions import State
from governance.core.changes import Author, Change
from governance.core.endings import cancelled, closing_payload, reclaimed
from governance.core.ledger import Hold, expire
from governance.core.switches import Switch
from governance.core.transitions import denied
from governance.operations.context import Governance
from governance.operations.switches import killing
from governance.store import events, sweeps, workers
from governance.store.action_rows import ActionRow
from governance.store.changes import apply, close

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: workers it looked at, workers given up, attempts reclaimed by the state they went to."""

    looked: int
    lost: tuple[str, ...]
    reclaimed: dict[str, int]


def suspects(gov: Governance) -> Mapping[str, int]:
    """Workers that own attempts and whose heartbeat has lapsed, with their last one: to be watched, then swept."""
    lease_us = gov.clock.span_us(gov.limits.lease_s)
    return workers.lapsed(gov.store, lapse_us=lease_us, now_us=gov.clock.now_us())


def watch_s(gov: Governance) -> float:
    """Real seconds for which suspects are watched: longer than anybody who lives needs for the next heartbeat."""
    return gov.limits.lease_s / 2


def sweep(gov: Governance, actor: str, watched: Mapping[str, int]) -> Swept:
    """One recovery pass over every worker, to the end, in bounded batches.

    `watched` are the `suspects` of `watch_s` ago: those that were not heard of since then are given up.
    """
    now_us = gov.clock.now_us()
    lease_us = gov.clock.span_us(gov.limits.lease_s)
    looked = workers.count(gov.store)
    silent = suspects(gov) if watched else {}
    lost = workers.gone(gov.store)
    lost += [worker_id for worker_id in sorted(watched) if silent.get(worker_id) == watched[worker_id]]
    reclaimed: Counter[str] = Counter()
    for worker_id in lost:
        reclaimed += _to_the_end(
            partial(sweeps.leased_by, gov.store, worker_id, _BATCH),
            partial(_reclaim, gov, reason=f"worker {worker_id} is gone", actor=actor),
        )
    reclaimed += _to_the_end(
        lambda: sweeps.orphaned(gov.store, now_us - 2 * lease_us, _BATCH),
        lambda action: _reclaim(gov, action, f"its owner {action.lease_worker} never said that it lives", actor),
    )
    reclaimed += _to_the_end(
        lambda: sweeps.forsaken(gov.store, now_us - 2 * lease_us, _BATCH),
        lambda action: _forsake(gov, action, actor),
    )
    return Swept(looked, tuple(lost), dict(reclaimed))


def child_gone(gov: Governance, worker_id: str, child: str, reason: str) -> list[tuple[str, State]]:
    """A living worker reports that a pool child is dead: everything that ran in it, also by direct calls."""
    moved = []
    for action in sweeps.leases_of(gov.store, worker_id, child):
        state = _reclaim(gov, action, reason, f"worker:{worker_id}")
        if state is not None:
            moved.append((action.ref.id, state))
    return moved


def overstayed(gov: Governance, session_id: str, actor: str) -> dict[str, int]:
    """Gives up what still runs in a session whose window and grace are over; how many went to which state."""
    reason = f"session {session_id} is over, and its grace too"
    return dict(
        _to_the_end(
            partial(sweeps.running_in, gov.store, session_id, _BATCH),
            partial(_reclaim, gov, reason=reason, actor=actor),
        )
    )


def ended_by_force(gov: Governance, action_id: str, worker_id: str, child: str, error_type: str, reason: str) -> None:
    """The worker kills the child that runs `action_id`, and Celery has ended it: it does not run again by itself.

    What the child ran besides, by direct calls, is gone with it.
    """
    for action in sweeps.leases_of(gov.store, worker_id, child):
        if action.ref.id != action_id:
            _reclaim(gov, action, reason, f"worker:{worker_id}")
            continue
        after = State.FAILED if action.idempotent else State.IN_DOUBT
        _give_up(gov, action, after, reason, f"worker:{worker_id}", error_type, delivered=True)


def bodiless(gov: Governance, worker_id: str, started_before: Mapping[str, int | None], settled_us: int) -> list[str]:
    """Gives up attempts of a living worker that no body belongs to any more; their ids.

    `started_before` maps each of its pool children to the instant its present request began, None when it has none;
    a child runs one request at a time, so an attempt from before that has no body. Attempts younger than `settled_us`
    are left alone: what the worker knows of its children may be a little late.
    """
    given_up = []
    for action in sweeps.leases_of(gov.store, worker_id):
        started_us = action.started_us or 0
        child = action.lease_child or ""
        if started_us >= settled_us or child not in started_before:
            continue
        present_us = started_before[child]
        if present_us is None or started_us < present_us - (gov.clock.now_us() - settled_us):
            reason = "its body is over and nobody recorded how it ended"
            if _reclaim(gov, action, reason, f"worker:{worker_id}") is not None:
                given_up.append(action.ref.id)
    return given_up


def _to_the_end(find: Callable[[], list[ActionRow]], give_up: Callable[[ActionRow], State | None]) -> Counter[str]:
    """Batch after batch, until one moves nothing; how many went to which state."""
    moved: Counter[str] = Counter()
    while batch := find():
        states = [state for action in batch if (state := give_up(action)) is not None]
        if not states:
            break
        moved.update(states)
    return moved


def _reclaim(gov: Governance, action: ActionRow, reason: str, actor: str) -> State | None:
    if not action.idempotent:
        after = State.IN_DOUBT
    elif (switch := killing(gov, action)) is not None:
        return _cancel(gov, action, switch, actor)
    elif action.direct:
        after = State.FAILED
        reason = f"{reason}; its caller went with it"
    elif (lost := events.count_of(gov.store, action.ref.id, "action.reclaimed") + 1) >= gov.limits.attempts_max:
        # Attempts that ended by themselves, in a retry or waiting for others, are nobody's loss.
        after = State.FAILED
        reason = f"{reason}; it was lost {lost} times, {gov.limits.attempts_max} at most"
    else:
        after = State.QUEUED
    return _give_up(gov, action, after, reason, actor, "WorkerLost", delivered=action.direct and after is State.FAILED)


def _cancel(gov: Governance, action: ActionRow, switch: Switch, actor: str) -> State | None:
    """A kill switch covers it: it does not run again, also when the switch is released in this moment."""
    by = Author(actor, gov.clock.now_us())

    def closing(holds: tuple[Hold, ...]) -> Change:
        closings = expire(holds)
        payload = closing_payload(closings)
        return cancelled(
            action.ref,
            by,
            rule=switch.rule,
            reason=switch.reason,
            due=False,
            closings=closings,
            closing_payload=payload,
        )

    return State.CANCELLED if close(gov.store, action.ref, closing) else None


def _forsake(gov: Governance, action: ActionRow, actor: str) -> State | None:
    change = denied(
        action.ref,
        Author(actor, gov.clock.now_us()),
        rule="direct-call",
        reason="its caller went away before it was admitted",
        delivered=True,
    )
    return State.DENIED if apply(gov.store, change) else None


def _give_up(
    gov: Governance, action: ActionRow, after: State, reason: str, actor: str, error_type: str, *, delivered: bool
) -> State | None:
    by = Author(actor, gov.clock.now_us())

    def closing(holds: tuple[Hold, ...]) -> Change:
        return reclaimed(
            action.ref,
            by,
            after=after,
            reason=reason,
            error_type=error_type,
            closings=expire(holds),
            delivered=delivered,
        )

    return after if close(gov.store, action.ref, closing) else None
