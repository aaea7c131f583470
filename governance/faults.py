"""Named places where a fault can be injected: free in production, iterated over by the fault suite.

`ACP_FAULT=<point>:<file>` kills the process (SIGKILL) at that point once: the first process that gets there creates the
file, and only the one that created it dies.
"""

import os
import signal
from typing import Final

POINTS: Final = (
    "after_submit_before_publish",
    "after_hold_before_run",
    "after_run_before_finish",
    "after_finish_before_result",
    "after_retry_before_publish",
    "after_decision_before_publish",
    "after_reclaim_before_publish",
    "after_relay_claim_before_publish",
    "after_first_of_pruned",
    "after_agent_heard_before_save",
    "after_agent_save_before_calls",
    "after_agent_calls_before_wait",
    "after_agent_wait_before_look",
)

_ARMED = os.environ.get("ACP_FAULT", "")


def point(name: str) -> None:
    """Dies here when this point is armed."""
    if _ARMED and _ARMED.partition(":")[0] == name:
        _die_once(_ARMED.partition(":")[2])


def _die_once(marker: str) -> None:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
