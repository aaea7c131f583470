"""What must not be forgotten is written to the store or to disk, however long both of them are away or full.

Whoever went on without either would leave an attempt that nobody can tell the end of. Its process waits instead: while
it does, its worker keeps the lease and everybody can read in the log why.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import structlog

from governance.errors import StoreUnavailable
from governance.middleware.call import Call

log = structlog.get_logger(__name__)

T = TypeVar("T")
_PAUSE_S: Final = 1.0


def insist(call: Call, what: str, *ways: Callable[[], T]) -> T:
    """The answer of the first way that works, tried in this order, again and again.

    The time limit's interrupt does not end it; the hard limit, which kills the process, does.
    """
    passing: tuple[type[Exception], ...] = (StoreUnavailable, OSError, *call.interrupts)
    while True:
        for way in ways:
            try:
                return way()
            except passing as problem:
                log.warning(f"{what} not written", problem=str(problem))
        log.error(f"{what} found neither the store nor room on disk: waiting for one of them", spool=call.spool.folder)
        with suppress(*call.interrupts):
            time.sleep(_PAUSE_S)
