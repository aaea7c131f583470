"""STARTED in the result backend, for bodies that take time.

Celery writes it before every body; of one that does nothing it is a sixth of the whole work, and gone before anybody
could look. Events tell of every start at once.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from celery import Task

from acp_tasks.results import store_started

log = structlog.get_logger(__name__)

#: A body is told of when it has run for so long, and before it has run for twice as long.
SHORT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Body:
    task: "Task[Any, Any]"
    request: Any
    since_s: float = field(default_factory=time.monotonic)


class Starts:
    """The bodies that run in this process and were not told of yet, and the thread that tells of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a new process: the bodies, and the thread, are those of the one it was forked from."""
        self._changed = threading.Condition(threading.Lock())
        self._untold: dict[str, _Body] = {}
        self._telling: str | None = None
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, task: "Task[Any, Any]", request: Any) -> None:
        """A body of `task` begins."""
        with self._changed:
            self._untold[request.id] = _Body(task, request)
            self._some.set()
            if self._thread is None:
                self._start_thread()

    def over(self, action_id: str, passing: tuple[type[Exception], ...] = ()) -> None:
        """What is written of it next stands: STARTED is written by now, or never will be. `passing` do not end it."""
        while True:
            try:
                with self._changed:
                    self._untold.pop(action_id, None)
                    self._changed.wait_for(lambda: self._telling != action_id)
                return
            except passing:
                continue

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="acp-starts", daemon=True)
        try:
            thread.start()
        except RuntimeError as problem:
            log.warning("starts not announced", problem=str(problem))
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(SHORT_S)
            while (body := self._next()) is not None:
                self._tell(body)

    def _next(self) -> _Body | None:
        """One that has run for long enough."""
        before_s = time.monotonic() - SHORT_S
        with self._changed:
            due = next((body for body in self._untold.values() if body.since_s <= before_s), None)
            if due is not None:
                self._telling = due.request.id
                del self._untold[due.request.id]
            elif not self._untold:
                self._some.clear()
        return due

    def _tell(self, body: _Body) -> None:
        try:
            # Asked for here: a backend need not be for several threads.
            store_started(body.task.backend, body.request, {"pid": os.getpid(), "hostname": body.request.hostname})
        except Exception as problem:
            # Telemetry may be lost; the attempt is admitted.
            log.warning("start not announced", problem=repr(problem))
        finally:
            with self._changed:
                self._telling = None
                self._changed.notify_all()


starts: Final = Starts()
os.register_at_fork(after_in_child=starts.forget)
