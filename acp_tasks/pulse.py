"""A scheduler's heartbeat: one row for each beat process, so that `acp doctor` and the metrics can count those alive.

A thread, so that a database that is away delays no tick; what goes wrong is a line in the log.
"""

import atexit
import os
import socket
import threading

import structlog

from acp_tasks import bootstrap
from governance.errors import GovernanceError
from governance.operations import heartbeat
from governance.operations.context import Limits

log = structlog.get_logger(__name__)


class Pulse:
    """Beats for one scheduler until it is stopped."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._id = f"beat@{self._host}#{bootstrap.new_id()}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acp-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Says goodbye, as far as the database is there."""
        self._stop.set()
        self._thread.join(timeout=5)
        try:
            heartbeat.scheduler_gone(bootstrap.governance(), self._id)
        except GovernanceError as problem:
            log.warning("goodbye not written", beat=self._id, problem=str(problem))

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            wait_s = wait_s or Limits().heartbeat_s
            try:
                gov = bootstrap.governance()
                wait_s = gov.limits.heartbeat_s
                heartbeat.scheduler_alive(gov, self._id, self._host, os.getpid())
            except GovernanceError as problem:
                log.warning("no heartbeat", beat=self._id, problem=str(problem))


def start_pulse() -> None:
    """Starts this process's pulse; it ends with the process."""
    pulse = Pulse()
    pulse.start()
    atexit.register(pulse.stop)
