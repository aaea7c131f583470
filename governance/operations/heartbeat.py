"""Heartbeats of worker processes: what recovery goes by."""

from governance.operations.context import Governance
from governance.store import workers


def register(gov: Governance, worker_id: str, pid: int) -> None:
    """A worker process says that it exists and is alive."""
    workers.register(gov.store, worker_id, pid, gov.clock.now_us())


def beat(gov: Governance, worker_id: str) -> bool:
    """Still alive; False when nobody has registered it, or the row is gone."""
    return workers.beat(gov.store, worker_id, gov.clock.now_us())


def goodbye(gov: Governance, worker_id: str) -> None:
    """The worker ends: whatever it still holds may be reclaimed at once."""
    workers.stopped(gov.store, worker_id, gov.clock.now_us())
