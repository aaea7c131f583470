"""Retention: prunes what is older than ACP_KEEP_DAYS, a bounded amount at each tick."""

import logging
from typing import Final

from celery import Celery

from acp_tasks import bootstrap
from governance.operations.context import Governance
from governance.operations.retention import prune_aged

# A worker's slot is taken for about half a minute.
_ROWS_MAX: Final = 500_000
_log = logging.getLogger(__name__)


def prune(app: Celery, gov: Governance) -> dict[str, int]:
    """Returns how many sessions and events were pruned; what does not verify is kept, and logged."""
    pruned = prune_aged(gov, bootstrap.parts().settings.keep_days, _ROWS_MAX)
    if pruned is None:
        return {"sessions": 0, "events": 0}
    for kept in pruned.kept:
        if kept.damaged:
            _log.error("session %s is not pruned, it is evidence: %s", kept.session_id, kept.why)
    return {"sessions": len(pruned.pruned), "events": sum(one.events for one in pruned.pruned)}
