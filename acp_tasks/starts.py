"""STARTED in the result backend, for bodies that take time.

Celery writes it before every body; of one that does nothing it is a sixth of the whole work, and gone before anybody
could look. Events tell of every start at once.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from celery import Task

from acp_tasks.results import store_started

log = structlog.get_logger(__name__)

#: A body is told of when it has run for so long, and before it has run for twice as long.
SHORT_S: Final = 0.05


class _Started:
    """One body that runs."""

    def __init__(self, task: "Task[Any, Any]", request: Any) -> None:
        self.since_s = time.monotonic()
        self._task = task
        self._request = request
        self._over = False
        self._writing = threading.Lock()

    def tell(self) -> None:
        with self._writing:
            if self._over:
                return
            try:
                # Asked for here: a backend need not be for several threads.
                meta = {"pid": os.getpid(), "hostname": self._request.hostname}
                store_started(self._task.backend, self._request, meta)
            except Exception as problem:
                # Telemetry may be lost; the attempt is admitted.
                log.warning("start not announced", problem=repr(problem))

    def end(self) -> None:
        """STARTED is written or never will be: its outcome may be written now."""
        self._over = True
        with self._writing:
            pass


class Starts:
    """The bodies that run in this process and were not told of yet, and the thread that tells of them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a new process: the bodies, and the thread, are those of the one it was forked from."""
        self._lock = threading.Lock()
        self._untold: set[_Started] = set()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def told(self, task: "Task[Any, Any]", request: Any) -> Iterator[None]:
        """Around a body."""
        started = _Started(task, request)
        with self._lock:
            self._untold.add(started)
            if not self._some.is_set():
                self._some.set()
            alone = self._thread is None and not self._start_thread()
        if alone:
            started.tell()
        try:
            yield
        finally:
            started.end()
            with self._lock:
                self._untold.discard(started)

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._run, name="acp-starts", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # None is to be had: here and now, then.
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(SHORT_S)
            before_s = time.monotonic() - SHORT_S
            with self._lock:
                due = [started for started in self._untold if started.since_s <= before_s]
                self._untold.difference_update(due)
                if not self._untold:
                    self._some.clear()
            for started in due:
                started.tell()


starts: Final = Starts()
os.register_at_fork(after_in_child=starts.forget)
