"""The processes of the fleet as they were last heard of: whatever runs actions, and the schedulers."""

import json
from dataclasses import dataclass

from governance.operations.context import Governance
from governance.store import beats, workers


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """A process that runs actions and has not said goodbye, and for how many real seconds it has been silent.

    `host`, `queues`, `slots` and `ready_us` are what a worker says of itself; None of any other process.
    """

    id: str
    pid: int
    started_us: int
    heartbeat_us: int
    silent_s: float
    alive: bool
    host: str | None
    queues: tuple[str, ...] | None
    slots: int | None
    ready_us: int | None  # since when it takes traffic


@dataclass(frozen=True, slots=True)
class BeatLine:
    """A scheduler that has not said goodbye, and for how many real seconds it has been silent."""

    id: str
    host: str
    silent_s: float
    alive: bool


def list_workers(gov: Governance, *, silent_s_max: float) -> list[WorkerLine]:
    """Workers that were heard of within the last `silent_s_max` real seconds, the liveliest first."""
    now_us = gov.clock.now_us()
    lines = []
    for row in workers.heard_of(gov.store, now_us - gov.clock.span_us(silent_s_max)):
        silent_s = max(0.0, gov.clock.real_s(now_us - row["heartbeat_us"]))
        queues = None if row["queues"] is None else tuple(json.loads(row["queues"]))
        alive = silent_s < gov.limits.lease_s
        lines.append(
            WorkerLine(
                id=row["id"],
                pid=row["pid"],
                started_us=row["started_us"],
                heartbeat_us=row["heartbeat_us"],
                silent_s=round(silent_s, 1),
                alive=alive,
                host=row["host"],
                queues=queues,
                slots=row["slots"],
                ready_us=row["ready_us"],
            )
        )
    return lines


def list_beats(gov: Governance, *, silent_s_max: float) -> list[BeatLine]:
    """Schedulers that were heard of within the last `silent_s_max` real seconds, the liveliest first."""
    now_us = gov.clock.now_us()
    lines = []
    for beat_id, host, heartbeat_us in beats.heard_of(gov.store, now_us - gov.clock.span_us(silent_s_max)):
        silent_s = max(0.0, gov.clock.real_s(now_us - heartbeat_us))
        lines.append(BeatLine(beat_id, host, round(silent_s, 1), silent_s < gov.limits.lease_s))
    return lines
