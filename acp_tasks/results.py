"""What a governed app tells its result backend: Celery's own words, without reading first what is known.

Celery reads a result before it writes over it, so that what comes late hides no success.
"""

from typing import Any, Final

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import BackendStoreError
from celery.states import PENDING, RECEIVED, RETRY, STARTED

# Any: its types do not know what it is made of.
_KEY_VALUE: Final[Any] = BaseKeyValueStoreBackend
# What an action was before its attempt began. Anything else a body has said of itself, or is an outcome.
BEFORE_A_START: Final = frozenset((PENDING, RECEIVED, RETRY, STARTED, "AWAITING_APPROVAL", "DEFERRED"))


def register_results(app: Celery) -> None:
    """Our backends in place of Celery's for Redis; an app that has put its own there keeps it."""
    loader: Any = app.loader
    # By name: nothing of Redis is imported where results are elsewhere.
    redis, sentinel = "acp_tasks.redis_results:GovernedRedisBackend", "acp_tasks.redis_results:GovernedSentinelBackend"
    loader.override_backends = {"redis": redis, "rediss": redis, "sentinel": sentinel, **loader.override_backends}


def mark_recorded(request: Any, action_id: str) -> None:
    """What Celery is about to write for `request` is on record as the end of this action, the only one it has."""
    request.acp_recorded = action_id


def is_recorded(request: Any, task_id: str) -> bool:
    """Whether that was said, of this very task: a body that calls its own task directly shares its request."""
    return getattr(request, "acp_recorded", None) == task_id


def store_started(backend: Any, request: Any, meta: dict[str, Any]) -> None:
    """STARTED, over nothing that a body has said: this process may have stood still for any length of time.

    Only where it can be read and written as one, is it so wherever this process stands still.
    """
    if (store := getattr(backend, "store_started", None)) is not None:
        store(request, meta)
    elif not isinstance(backend, _KEY_VALUE):
        backend.store_result(request.id, meta, STARTED, request=request)
    elif backend._get_task_meta_for(request.id)["status"] in BEFORE_A_START:
        write(backend, request.id, meta, STARTED, request)


def encoded(backend: Any, task_id: str, result: Any, state: str, request: Any) -> Any:
    """A result as Celery keeps it."""
    meta = backend._get_result_meta(result=result, state=state, traceback=None, request=request)
    return backend.encode({**meta, "task_id": task_id})


def write(backend: Any, task_id: str, result: Any, state: str, request: Any) -> Any:
    """What `BaseKeyValueStoreBackend._store_result` does after it has read."""
    value = encoded(backend, task_id, result, state, request)
    try:
        backend._set_with_state(backend.get_key_for_task(task_id), value, state)
    except BackendStoreError as problem:
        named: Any = BackendStoreError
        raise named(str(problem), state=state, task_id=task_id) from problem
    return result
