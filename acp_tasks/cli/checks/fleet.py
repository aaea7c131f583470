"""The doctor on the fleet: who is alive, who does beat's jobs, whose clock is wrong, whether the database has room."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

from acp_tasks.bootstrap import DIRECT
from acp_tasks.cli.checks.finding import Finding, Status
from acp_tasks.control_queue import CONTROL, works_for_beat
from governance.operations import database
from governance.operations.context import Governance
from governance.operations.processes import BeatLine, WorkerLine, list_workers

_NAMED_MAX: Final = 20
# Clocks that are kept by NTP are closer than that.
_SKEW_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.2


def workers(known: Sequence[WorkerLine]) -> Finding:
    lapsed = [worker for worker in known if not worker.alive]
    detail = "; ".join(f"{worker.id} heard of {worker.silent_s:g} s ago" for worker in known[:_NAMED_MAX]) or "none"
    if len(lapsed) == len(known):
        return Finding("workers", Status.WARN, detail, "start one: celery -A acp_tasks worker")
    if lapsed:
        return Finding("workers", Status.WARN, detail, f"{len(lapsed)} fell silent: recovery takes over what they held")
    return Finding("workers", Status.OK, detail)


def beats(known: Sequence[WorkerLine], schedulers: Sequence[BeatLine]) -> Finding:
    alive = [beat for beat in schedulers if beat.alive]
    if not alive:
        working = any(worker.alive and worker.queues is not None for worker in known)
        lost = "without it nothing is recovered, escalated or sealed"
        status = Status.FAIL if working else Status.WARN
        return Finding("beat", status, f"none is alive; {lost}", "start one: celery -A acp_tasks beat")
    detail = ", ".join(beat.id.partition("#")[0] for beat in alive[:_NAMED_MAX])
    if len(alive) == 1:
        return Finding("beat", Status.OK, f"1 is alive: {detail}")
    return Finding("beat", Status.OK, f"{len(alive)} are alive, which is fine, each tick is done once: {detail}")


def control_queue(known: Sequence[WorkerLine]) -> Finding:
    name = "control queue"
    alive = [worker for worker in known if worker.alive and worker.queues is not None]
    takers = works_for_beat(alive)
    advice = f"start a worker for it: celery -A acp_tasks worker -Q {CONTROL} -n control@%h"
    if not takers:
        status = Status.FAIL if alive else Status.WARN
        return Finding(name, status, f"no live worker consumes {CONTROL}: beat's jobs wait", advice)
    own = [worker for worker in takers if worker.queues == (CONTROL,)]
    if not own:
        detail = f"consumed by the agents' workers ({len(takers)}): when all their slots are busy, beat's jobs wait"
        return Finding(name, Status.OK, detail)
    return Finding(name, Status.OK, f"consumed by workers of its own ({len(own)}): busy agents do not keep it waiting")


def connections(
    gov: Governance, pool_size: int, known: Sequence[WorkerLine], schedulers: Sequence[BeatLine]
) -> Iterator[Finding]:
    """Every process of the fleet against PostgreSQL's max_connections; nothing on SQLite."""
    room = database.room(gov)
    if room is None:
        return
    name = "connections"
    fleet = [worker for worker in known if worker.alive and not worker.id.startswith(DIRECT)]
    # A pool child is a process of its own with a pool of its own; so is each worker's main process, and each beat.
    processes = sum(1 + (worker.slots or 0) for worker in fleet) + sum(beat.alive for beat in schedulers)
    most = processes * pool_size
    sizes = f"{processes} processes with {pool_size} connections at most (ACP_POOL_SIZE) are {most}"
    detail = f"{sizes}; max_connections leaves {room.usable}, {room.in_use} are in use"
    advice = "raise max_connections, lower ACP_POOL_SIZE or the workers' concurrency, or put a pooler in between"
    if processes > room.usable:
        yield Finding(name, Status.FAIL, detail, f"{advice}: not even one for each process fits")
    elif most > room.usable:
        yield Finding(name, Status.WARN, detail, f"{advice}: under load some would be refused")
    else:
        yield Finding(name, Status.OK, detail)


def clocks(gov: Governance) -> Iterator[Finding]:
    """This machine against the database's, and against each live worker's as its heartbeats show it."""
    name = "clocks"
    far_s = gov.limits.lease_s / 2
    skews: dict[str, float] = {}
    ahead_s = database.server_ahead_s(gov)
    if ahead_s is not None:
        skews["the database server"] = ahead_s
    skews |= _of_workers(gov)
    wrong = {who: skew_s for who, skew_s in skews.items() if abs(skew_s) > _SKEW_S}
    if not wrong:
        yield Finding(name, Status.OK, f"within {_SKEW_S:g} s of this machine's: {', '.join(skews) or 'nobody else'}")
        return
    detail = ", ".join(f"{who} is {abs(s):.1f} s {'ahead' if s > 0 else 'behind'}" for who, s in wrong.items())
    status = Status.FAIL if any(abs(skew_s) >= far_s for skew_s in wrong.values()) else Status.WARN
    advice = f"keep them by NTP: from {far_s:g} s on (half of ACP_LEASE_S) a living worker may be given up for dead"
    yield Finding(name, status, f"compared with this machine, {detail}", advice)


def _of_workers(gov: Governance) -> dict[str, float]:
    """How far each worker's clock is ahead; of a silent one that is only slow to beat, after its next heartbeat.

    A heartbeat is as old as the time since it was written, less what its writer's clock is ahead. Where one is older
    than the interval the next is waited for: if it comes, its age shows a clock that is behind.
    """
    interval_s = gov.limits.heartbeat_s
    skews: dict[str, float] = {}
    late: dict[str, int] = {}
    for worker in _heard_of(gov):
        age_s = _age_s(gov, worker)
        if age_s > interval_s + _SKEW_S:
            late[worker.id] = worker.heartbeat_us
        else:
            skews[worker.id] = -min(age_s, 0.0)
    end_s = time.monotonic() + interval_s + _SKEW_S
    while late and time.monotonic() < end_s:
        time.sleep(_LOOK_EVERY_S)
        for worker in _heard_of(gov):
            if worker.id in late and worker.heartbeat_us > late[worker.id]:
                del late[worker.id]
                skews[worker.id] = -_age_s(gov, worker)
    return skews


def _heard_of(gov: Governance) -> list[WorkerLine]:
    return list_workers(gov, silent_s_max=10 * gov.limits.lease_s)


def _age_s(gov: Governance, worker: WorkerLine) -> float:
    return gov.clock.real_s(gov.clock.now_us() - worker.heartbeat_us)
