"""Leaving nothing behind: whatever became of a drill, its work is stopped and its switch released."""

from collections.abc import Sequence
from typing import Final

from celery import Celery

from acp_tasks.publish import deliver
from acp_tasks.stop import stop
from governance.core.actions import TERMINAL
from governance.core.switches import Mode, Scope
from governance.operations.clearing import release
from governance.operations.context import Governance
from governance.operations.drills import DRILL, states, tell_nobody
from governance.operations.switches import engaged_in

_GRACE_S: Final = 2.0
_REASON: Final = "the drill is over"


def clear(app: Celery, gov: Governance, session_id: str, action_ids: Sequence[str]) -> None:
    """Ends these actions, which are all that a drill session has. Raises StoreUnavailable."""
    if any(state not in TERMINAL for state in states(gov, action_ids).values()):
        stop(app, gov, Scope.SESSION, session_id, mode=Mode.KILL, reason=_REASON, by=DRILL, grace_s=_GRACE_S)
    for switch_id in engaged_in(gov, Scope.SESSION, session_id):
        for resumed in release(gov, switch_id, reason=_REASON, by=DRILL):
            deliver(app, gov, resumed)
    tell_nobody(gov, action_ids)
