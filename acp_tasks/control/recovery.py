"""Recovery: gives up what dead workers held and brings it back, or hands it to a person."""

from celery import Celery

from acp_tasks.publish import publish
from governance.faults import point
from governance.operations.context import Governance
from governance.operations.doubts import open_tickets
from governance.operations.recover import sweep
from governance.operations.relay import unpublished

_BATCH = 500


def recover(app: Celery, gov: Governance) -> dict[str, int]:
    """One sweep over every worker; what may run again is published at once."""
    swept = sweep(gov, "recovery")
    if swept.reclaimed:
        point("after_reclaim_before_publish")
        for message in unpublished(gov, _BATCH):
            publish(app, gov, message)
    # Also of what came into doubt since the last tick: a worker tells of its dead children by itself.
    open_tickets(gov, _BATCH)
    return {"looked": swept.looked, "suspected": swept.suspected, "lost": len(swept.lost), **swept.reclaimed}
