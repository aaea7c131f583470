"""Keeps threads out of SQLite while their process forks.

SQLite counts in memory what this process has locked. A child inherits the counts and not the threads that would count
down again: what another thread had locked at the fork stays locked for the child, for as long as it lives, although
nobody holds it. So a fork waits until no thread is inside, and finds every connection closed.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A statement waits this long for a lock at most, and then some.
_WAIT_S: Final = 60.0


class ForkGate:
    """Open until a fork is about to happen. A thread that is inside may go in again."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """In a new child: whoever was inside is not here."""
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._forks = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._forks or me in self._inside)
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    def shut(self) -> None:
        """Waits until no other thread is inside; the one that forks cannot wait for itself."""
        me = threading.get_ident()
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._inside.keys() - {me}, _WAIT_S)

    def open(self) -> None:
        with self._changed:
            self._forks = max(self._forks - 1, 0)
            self._changed.notify_all()
