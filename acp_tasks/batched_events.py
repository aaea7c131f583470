"""Task events of a governed worker leave its main process in batches.

Celery sends what it has in every turn of its loop. Of a body that takes longer than nothing the three events fall into
three turns, and each message of one event costs the main process as much as the whole rest of what it does for it.
Whoever listens hears of it this much later, and in the same order.
"""

from functools import partial
from typing import Any, Final

from celery import bootsteps
from celery.events import EventDispatcher

_BATCH_S: Final = 0.05


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
