"""Beat's own silence. Beat cannot notice it, and what beat drives cannot tell of it: a worker's heart does both.

The look is one read of an index, a few times within ACP_ALERT_BEAT_S. While beat is silent, a thread of its own tells
what is untold, so that a slow receiver does not hold up the heartbeat; one worker's at a time, as senders take turns.
"""

import threading
import time
from typing import Final

import structlog

from acp_tasks import bootstrap, push, webhook
from governance.operations.alerts import beat_is_silent

log = structlog.get_logger(__name__)

# Looks within ACP_ALERT_BEAT_S.
_LOOKS: Final = 8


class BeatWatch:
    """Looks for ticks on behalf of one worker, since it started."""

    def __init__(self, since_us: int) -> None:
        self._since_us = since_us
        self._next_s = 0.0
        self._teller: threading.Thread | None = None

    def look(self, parts: bootstrap.Parts) -> None:
        """Raises the alert of a silent beat, and has it told. Raises StoreUnavailable."""
        thresholds = bootstrap.thresholds(parts.settings)
        if not thresholds.beat_s or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + thresholds.beat_s / _LOOKS
        if not beat_is_silent(parts.gov, thresholds, self._since_us):
            return
        if self._teller is None or not self._teller.is_alive():
            log.error("beat is silent: none of its jobs was begun lately", threshold_s=thresholds.beat_s)
            self._teller = threading.Thread(target=_tell, args=(parts,), name="acp-silence", daemon=True)
            self._teller.start()


def _tell(parts: bootstrap.Parts) -> None:
    try:
        receiver = webhook.receiver(parts.settings)
        if receiver is not None:
            webhook.tell(parts.gov, receiver)
        push.push(parts.gov, parts.settings)
    except Exception as problem:
        # The next look tries again.
        log.warning("not told that beat is silent", problem=repr(problem))
