"""Lanes: a queue of its own to each worker, for as long as a drill lasts, so that an action can be sent to one of them.

The workers go on with their other queues. A lane is closed in any case: its consumer is cancelled, its queue deleted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import Celery
from kombu import Exchange, Queue

from acp_tasks.publish import BROKER_ERRORS

log = structlog.get_logger(__name__)

_REPLY_S: Final = 5.0
# Two canaries and a bystander.
_DRILL_SLOTS: Final = 3
_PREFORK: Final = "celery.concurrency.prefork:TaskPool"


@dataclass(frozen=True, slots=True)
class Pool:
    """A worker's pool as it said itself: its slots, how many are busy, and whether a body in it can be interrupted."""

    slots: int
    busy: int
    interruptible: bool

    @property
    def room(self) -> int:
        """The slots that a drill may take: all of an idle pool, all but one of what a busy one has free."""
        return self.slots - self.busy - (1 if self.busy else 0)

    @property
    def crowded(self) -> bool:
        """Busy, and with no room for two canaries and a bystander."""
        return self.busy > 0 and self.room < _DRILL_SLOTS


def pools(app: Celery, nodes: Sequence[str]) -> dict[str, Pool]:
    """The pools of those workers that answer in time."""
    if not nodes:
        return {}
    inspect = app.control.inspect(destination=list(nodes), timeout=_REPLY_S, limit=len(nodes))
    try:
        stats: Mapping[str, Any] = inspect.stats() or {}
        active: Mapping[str, Any] = inspect.active(safe=True) or {}
    except BROKER_ERRORS as problem:
        log.warning("no worker was asked for its pool", problem=str(problem))
        return {}
    return {node: _pool(said["pool"], len(active.get(node) or ())) for node, said in stats.items() if "pool" in said}


@contextmanager
def lanes(app: Celery, drill_id: str, nodes: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The queue that each of these workers takes messages from until the end of the block."""
    queues = {node: f"acp.drill.{drill_id}.{number}" for number, node in enumerate(nodes)}
    try:
        for node, queue in queues.items():
            # By hand: an app may forbid queues that it does not know.
            app.amqp.queues.add(_declared(queue))
            app.control.add_consumer(queue, destination=[node], reply=True, limit=1, timeout=_REPLY_S)
        yield queues
    finally:
        for node, queue in queues.items():
            _close(app, node, queue)


def _close(app: Celery, node: str, queue: str) -> None:
    try:
        app.control.cancel_consumer(queue, destination=[node], reply=True, limit=1, timeout=_REPLY_S)
        with app.connection_for_write() as connection:
            lane = _declared(queue).bind(connection.default_channel)
            # A channel forgets only what it has declared.
            lane.declare()
            lane.delete()
            lane.exchange.delete()
    except BROKER_ERRORS as problem:
        log.warning("a drill's queue was left behind", queue=queue, worker=node, problem=str(problem))
    finally:
        app.amqp.queues.pop(queue, None)


def _declared(queue: str) -> Queue:
    """As a worker declares a queue that it is only told the name of."""
    return Queue(queue, Exchange(queue, type="direct"), routing_key=queue)


def _pool(said: Mapping[str, Any], busy: int) -> Pool:
    implementation = str(said.get("implementation"))
    processes = said.get("processes") if implementation == _PREFORK else None
    return Pool(len(processes or ()) or int(said["max-concurrency"]), busy, implementation == _PREFORK)
