"""Recovery: gives up what dead workers held and brings it back, or hands it to a person."""

import time

from celery import Celery

from acp_tasks.publish import publish
from governance.faults import point
from governance.operations.context import Governance
from governance.operations.doubts import open_tickets
from governance.operations.recover import suspects, sweep, watch_s
from governance.operations.relay import unpublished

_BATCH = 500


def recover(app: Celery, gov: Governance) -> dict[str, int]:
    """One sweep over every worker; what may run again is published at once.

    Takes a moment when somebody is suspected: until it is known who lives.
    """
    suspected = suspects(gov)
    if suspected:
        time.sleep(watch_s(gov))
    swept = sweep(gov, "recovery", suspected)
    if swept.reclaimed:
        point("after_reclaim_before_publish")
        for message in unpublished(gov, _BATCH):
            publish(app, gov, message)
    # Also of what came into doubt since the last tick: a worker tells of its dead children by itself.
    open_tickets(gov, _BATCH)
    return {"looked": swept.looked, "suspected": len(suspected), "lost": len(swept.lost), **swept.reclaimed}
