"""What a governed app tells its result backend: Celery's own words, without reading first what is known.

Celery reads a result before it writes over it, so that what comes late hides no success.
"""

from typing import Any, Final

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.states import STARTED

# Any: its types do not know what it is made of.
_KEY_VALUE: Final[Any] = BaseKeyValueStoreBackend


def register_results(app: Celery) -> None:
    """Our backends in place of Celery's for Redis; an app that has put its own there keeps it."""
    loader: Any = app.loader
    # By name: nothing of Redis is imported where results are elsewhere.
    redis, sentinel = "acp_tasks.redis_results:GovernedRedisBackend", "acp_tasks.redis_results:GovernedSentinelBackend"
    loader.override_backends = {"redis": redis, "rediss": redis, "sentinel": sentinel, **loader.override_backends}


def settled(request: Any) -> None:
    """What Celery is about to write for `request` is on record as the end of its action, the only one it has."""
    request.acp_settled = True


def is_settled(request: Any) -> bool:
    """Whether it is."""
    return getattr(request, "acp_settled", False)


def store_started(backend: Any, request: Any, meta: dict[str, Any]) -> None:
    """STARTED of an attempt that is admitted and runs: there is no outcome that it could hide."""
    if isinstance(backend, _KEY_VALUE):
        backend._ensure_retryable(write, backend, request.id, meta, STARTED, request)
    else:
        backend.store_result(request.id, meta, STARTED, request=request)


def write(backend: Any, task_id: str, result: Any, state: str, request: Any) -> Any:
    """What `BaseKeyValueStoreBackend._store_result` does after it has read."""
    meta = backend._get_result_meta(result=result, state=state, traceback=None, request=request)
    meta["task_id"] = task_id
    backend._set_with_state(backend.get_key_for_task(task_id), backend.encode(meta), state)
    return result
