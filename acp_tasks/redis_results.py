"""Celery's result backend for Redis, that asks it nothing whose answer is known or not wanted yet.

Celery subscribes to the result of every task that it publishes, whether or not anybody is going to wait for it, and
unsubscribes when the last reference to it is gone: a fifth of what a producer does.
"""

from typing import Any, Final

from celery.backends import redis
from celery.states import SUCCESS

from acp_tasks.results import is_settled, write

# Any: its types do not know what these are made of.
_REDIS: Final[Any] = redis.RedisBackend
_SENTINEL: Final[Any] = redis.SentinelBackend
_CONSUMER: Final[Any] = vars(redis)["ResultConsumer"]


class LateSubscriber(_CONSUMER):  # type: ignore[misc]
    """Subscribes to a result when somebody waits for it, and looks once for one that was there before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread: set[str] = set()

    def on_after_fork(self) -> None:
        """As Celery's."""
        self._unread = set()
        super().on_after_fork()

    def consume_from(self, task_id: str) -> None:
        """As Celery's."""
        super().consume_from(task_id)
        self._unread.add(task_id)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """As Celery's, which reads what `result` is made of."""
        super().on_wait_for_pending(result, **kwargs)
        self._unread.difference_update([node.id for node in getattr(result, "results", None) or (result,)])

    def drain_events(self, timeout: float | None = None) -> None:
        """As Celery's, after what was said before this process listened: for a `then()` nobody has read it."""
        if self._unread:
            unread, self._unread = self._unread, set()
            # When the connection is lost, connecting anew reads everything that is subscribed to.
            with self.reconnect_on_error():
                for kept in self.backend.mget([self.backend.get_key_for_task(task_id) for task_id in unread]):
                    if kept is not None:
                        self.on_state_change(self.backend.decode_result(kept), None)
        super().drain_events(timeout)


class _Governed:
    ResultConsumer = LateSubscriber

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nobody waits yet."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if state == SUCCESS and is_settled(request):
            return write(self, task_id, result, state, request)
        # Any: Celery's class comes after this one.
        celerys: Any = super()
        return celerys._store_result(task_id, result, state, traceback, request, **kwargs)

    def _set(self: Any, key: Any, value: Any, expires: int | None = None) -> None:
        # Celery's is a transaction. Whoever hears of a value before it can be read has heard the value.
        expires = self.expires if expires is None else expires
        with self.client.pipeline(transaction=False) as pipe:
            pipe.set(key, value, ex=expires or None)
            pipe.publish(key, value)
            pipe.execute()


class GovernedRedisBackend(_Governed, _REDIS):  # type: ignore[misc]
    """For `redis://` and `rediss://`."""


class GovernedSentinelBackend(_Governed, _SENTINEL):  # type: ignore[misc]
    """For `sentinel://`."""
