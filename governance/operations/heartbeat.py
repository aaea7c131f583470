"""Heartbeats of worker processes, which are what recovery goes by, and of schedulers."""

import json
from dataclasses import dataclass
from typing import Final

from governance.operations.context import Governance
from governance.store import beats, workers

_FORGOTTEN_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is there for: its machine, the queues it consumes, and how many actions it runs at a time."""

    host: str
    queues: tuple[str, ...]
    slots: int | None = None  # None: not known yet


def register(gov: Governance, worker_id: str, pid: int, post: Post | None = None, ready_us: int | None = None) -> None:
    """A process that runs actions says that it exists and is alive; without a post it is no worker.

    Those that have been silent for a day and own nothing are forgotten on the way.
    """
    now_us = gov.clock.now_us()
    workers.forget(gov.store, now_us - gov.clock.span_us(_FORGOTTEN_S))
    workers.register(
        gov.store,
        worker_id,
        pid,
        now_us,
        host=post.host if post else None,
        queues=json.dumps(post.queues) if post else None,
        slots=post.slots if post else None,
        ready_us=ready_us,
    )


def beat(gov: Governance, worker_id: str, slots: int | None = None) -> bool:
    """Still alive, with room for so many; False when nobody has registered it, or the row is gone."""
    return workers.beat(gov.store, worker_id, gov.clock.now_us(), slots)


def ready(gov: Governance, worker_id: str) -> int:
    """The worker has looked for what was left behind and takes traffic from now on; when that is."""
    now_us = gov.clock.now_us()
    workers.ready(gov.store, worker_id, now_us)
    return now_us


def goodbye(gov: Governance, worker_id: str) -> None:
    """The worker ends: whatever it still holds may be reclaimed at once."""
    workers.stopped(gov.store, worker_id, gov.clock.now_us())


def scheduler_alive(gov: Governance, beat_id: str, host: str, pid: int) -> None:
    """A scheduler says that it exists and is alive."""
    beats.alive(gov.store, beat_id, host, pid, gov.clock.now_us())


def scheduler_gone(gov: Governance, beat_id: str) -> None:
    """The scheduler ends; those that have been silent for a day are forgotten on the way."""
    now_us = gov.clock.now_us()
    beats.stopped(gov.store, beat_id, now_us)
    beats.forget(gov.store, now_us - gov.clock.span_us(_FORGOTTEN_S))
