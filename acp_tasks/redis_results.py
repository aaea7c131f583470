"""Celery's result backend for Redis, that asks it nothing whose answer is known or not wanted yet.

Celery subscribes to the result of every task that it publishes, whether or not anybody is going to wait for it, and
unsubscribes when the last reference to it is gone: a fifth of what a producer does.
"""

from typing import Any, Final

from celery.backends import asynchronous, redis
from celery.states import STARTED, SUCCESS

from acp_tasks.results import BEFORE_A_START, encoded, is_recorded, write

# Any: its types do not know what these are made of.
_REDIS: Final[Any] = redis.RedisBackend
_SENTINEL: Final[Any] = redis.SentinelBackend
_CONSUMER: Final[Any] = vars(redis)["ResultConsumer"]
_WAITING: Final[Any] = vars(asynchronous)["_waiting_on"]
_PAGE: Final = 1000


class LateSubscriber(_CONSUMER):  # type: ignore[misc]
    """Subscribes to a result when somebody waits for it, and looks once for one that was there before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Changed by several threads, one id at a time.
        self._unread: set[str] = set()

    def on_after_fork(self) -> None:
        """As Celery's."""
        self._unread = set()
        super().on_after_fork()

    def consume_from(self, task_id: str) -> None:
        """As Celery's."""
        super().consume_from(task_id)
        self._unread.add(task_id)

    def cancel_for(self, task_id: str) -> None:
        """As Celery's, where there is something to cancel: most results are dropped without ever being waited for."""
        self._unread.discard(task_id)
        if self._get_key_for_task(task_id) in self.subscribed_to:
            super().cancel_for(task_id)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """As Celery's, which reads what `result` is made of."""
        super().on_wait_for_pending(result, **kwargs)
        for node in getattr(result, "results", None) or (result,):
            self._unread.discard(node.id)

    def drain_events(self, timeout: float | None = None) -> None:
        """As Celery's, after what was said before this process listened: for a `then()` nobody has read it."""
        while unread := self._some_unread():
            try:
                # When the connection is lost, connecting anew reads everything that is subscribed to.
                with self.reconnect_on_error():
                    kept = self.backend.mget([self.backend.get_key_for_task(task_id) for task_id in unread])
                    for task_id, value in zip(list(unread), kept, strict=True):
                        unread.remove(task_id)
                        # Whoever waited for it may have read it meanwhile.
                        if value is not None and _WAITING(self._pending_results, task_id):
                            self.on_state_change(self.backend.decode_result(value), None)
            finally:
                # A callback has raised: the others are told next time.
                self._unread.update(unread)
        super().drain_events(timeout)

    def _some_unread(self) -> list[str]:
        """A page of them, taken out."""
        taken: list[str] = []
        while len(taken) < _PAGE:
            try:
                taken.append(self._unread.pop())
            except KeyError:
                break
        return taken


class _Governed:
    ResultConsumer = LateSubscriber

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nobody waits yet."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state == SUCCESS and is_recorded(request, task_id):
            return write(self, task_id, result, state, request)
        # Any: Celery's class comes after this one.
        celerys: Any = super()
        return celerys._store_result(task_id, result, state, traceback, request, **kwargs)

    def store_started(self: Any, request: Any, meta: dict[str, Any]) -> None:
        """As `results.store_started`; what is said between the look and the write is looked at, too."""
        key, value = self.get_key_for_task(request.id), encoded(self, request.id, meta, STARTED, request)

        def look_and_put(pipe: Any) -> None:
            known = pipe.get(key)
            pipe.multi()
            if known is None or self.decode_result(known)["status"] in BEFORE_A_START:
                self._put(pipe, key, value)

        self.client.transaction(look_and_put, key)

    def _set(self: Any, key: Any, value: Any, expires: int | None = None) -> None:
        with self.client.pipeline() as pipe:
            self._put(pipe, key, value, expires)
            pipe.execute()

    def _put(self: Any, pipe: Any, key: Any, value: Any, expires: int | None = None) -> None:
        # As Celery's, by a call that is not deprecated: the warning of each costs more than the call.
        pipe.set(key, value, ex=(self.expires if expires is None else expires) or None)
        pipe.publish(key, value)


class GovernedRedisBackend(_Governed, _REDIS):  # type: ignore[misc]
    """For `redis://` and `rediss://`."""


class GovernedSentinelBackend(_Governed, _SENTINEL):  # type: ignore[misc]
    """For `sentinel://`."""
