"""Task events leave a governed process in batches: those of a worker's main process, and of whoever submits.

Celery sends a worker's in every turn of its loop. Of a body that takes longer than nothing the three events fall into
three turns, and each message of one event costs the main process as much as the whole rest of what it does for it. To
whoever submits it sends one more message for each task. Whoever listens hears of it this much later; Celery's events
carry a logical clock and may arrive in any order.
"""

import atexit
import os
import threading
from functools import cached_property, partial
from typing import Any, Final
from weakref import WeakSet

import structlog
from celery import Celery, bootsteps
from celery.events import Event, EventDispatcher
from celery.utils.time import utcoffset

log = structlog.get_logger(__name__)

_BATCH_S: Final = 0.1
# Nobody waits for telemetry, least of all a process that ends.
_PATIENCE: Final = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}


class BatchedEvents(bootsteps.StartStopStep):
    """For workers with an event loop; the others send every event by itself."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._waiting = False

    def start(self, parent: Any) -> None:
        dispatcher = parent.event_dispatcher
        if dispatcher is not None and dispatcher.on_send_buffered is not None:
            self._waiting = False
            dispatcher.on_send_buffered = partial(self._flush_soon, parent.hub, dispatcher)

    def stop(self, parent: Any) -> None:
        if parent.event_dispatcher is not None:
            parent.event_dispatcher.flush()

    def _flush_soon(self, hub: Any, dispatcher: EventDispatcher) -> None:
        if not self._waiting:
            self._waiting = True
            hub.call_later(_BATCH_S, self._flush, dispatcher)

    def _flush(self, dispatcher: EventDispatcher) -> None:
        self._waiting = False
        dispatcher.flush()


class SentEvents:
    """The `event_dispatcher` of an app's calls: keeps what Celery says of a published message, and sends it soon.

    An event that the broker does not take is lost, as Celery's own is, and so may be the last ones of a process that is
    killed: it is telemetry.
    """

    def __init__(self, app: Celery) -> None:
        # Any: its types know no clock.
        self.app: Any = app
        self._lock = threading.Lock()
        self._waiting: list[Any] = []
        _of_this_process.add(self)

    @cached_property
    def _dispatcher(self) -> Any:
        # For its exchange and names; made late, when the app is configured.
        return self.app.events.Dispatcher(enabled=False)

    def publish(self, type_: str, fields: dict[str, Any], _producer: Any, **_: Any) -> None:
        """As `EventDispatcher.publish`."""
        hostname, clock = self._dispatcher.hostname, self.app.clock.forward()
        event = Event(type_, hostname=hostname, utcoffset=utcoffset(), pid=os.getpid(), clock=clock, **fields)
        with self._lock:
            self._waiting.append(event)
            is_first = len(self._waiting) == 1
        if is_first:
            timer = threading.Timer(_BATCH_S, self.flush)
            timer.daemon = True
            try:
                timer.start()
            except RuntimeError:
                # No thread is to be had: here and now, then. The message itself is out, so nothing is raised.
                self.flush()

    def flush(self) -> None:
        """Sends what waits."""
        with self._lock:
            batch, self._waiting = self._waiting, []
        if not batch:
            return
        dispatcher = self._dispatcher
        try:
            with self.app.producer_or_acquire() as producer:
                producer.publish(
                    batch,
                    routing_key="task.multi",
                    exchange=dispatcher.exchange.name,
                    declare=[dispatcher.exchange],
                    serializer=dispatcher.serializer,
                    headers=dispatcher.headers,
                    delivery_mode=dispatcher.delivery_mode,
                    retry=True,
                    retry_policy=_PATIENCE,
                )
        except Exception as problem:
            log.warning("events not sent", events=len(batch), problem=repr(problem))

    def forget(self) -> None:
        """In a new process: what waits is sent by the one that it was forked from."""
        self._lock = threading.Lock()
        self._waiting = []
        # Its names are the parent's.
        self.__dict__.pop("_dispatcher", None)


_of_this_process: WeakSet[SentEvents] = WeakSet()


def sent_events(app: Celery) -> SentEvents:
    """The one of `app`."""
    return next((known for known in _of_this_process if known.app is app), None) or SentEvents(app)


@atexit.register
def _flush_all() -> None:
    for events in list(_of_this_process):
        events.flush()


def _forget_all() -> None:
    for events in list(_of_this_process):
        events.forget()


os.register_at_fork(after_in_child=_forget_all)
