"""Whether the worker or the scheduler of this machine is ready: what an orchestrator's probe asks."""

from collections.abc import Callable
from typing import Final

from governance.operations.context import Governance
from governance.operations.processes import WorkerLine, list_beats, list_workers

# Who has been silent for longer is none of this probe's business.
_HEARD_S: Final = 3600.0
# What has to be true of a worker, in order, and what it says otherwise.
_OF_A_WORKER: Final[tuple[tuple[Callable[[WorkerLine], bool], str], ...]] = (
    (lambda worker: worker.alive, "{id} was last heard of {silent_s:g} s ago"),
    (lambda worker: worker.ready_us is not None, "{id} still looks for what was left behind, before it takes traffic"),
)


def worker_missing(gov: Governance, host: str) -> str | None:
    """Why no worker of `host` is ready; None when one is. Raises StoreUnavailable, SchemaMismatch."""
    own = [worker for worker in list_workers(gov, silent_s_max=_HEARD_S) if worker.host == host]
    if not own:
        return f"no worker of {host} is registered: start one, or look at its log"
    lacking = [_lacks(worker) for worker in own]
    return None if None in lacking else lacking[0]


def beat_missing(gov: Governance, host: str) -> str | None:
    """Why no scheduler of `host` is alive; None when one is. Raises StoreUnavailable, SchemaMismatch."""
    if any(beat.alive and beat.host == host for beat in list_beats(gov, silent_s_max=_HEARD_S)):
        return None
    return f"no beat of {host} was heard of within {gov.limits.lease_s:g} s: start one, or look at its log"


def _lacks(worker: WorkerLine) -> str | None:
    for holds, otherwise in _OF_A_WORKER:
        if not holds(worker):
            return otherwise.format(id=worker.id, silent_s=worker.silent_s)
    return None
