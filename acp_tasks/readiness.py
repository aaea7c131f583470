"""What a worker does before it takes its first message: it looks for what was left behind while nobody did."""

import time

import structlog
from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.control.escalation import escalate
from acp_tasks.control.recovery import recover
from acp_tasks.control.relay import relay
from acp_tasks.heart import Heart
from governance.errors import SchemaMismatch, StoreUnavailable
from governance.operations import database

log = structlog.get_logger(__name__)


def look_before_traffic(app: Celery, heart: Heart) -> None:
    """Gives up what workers hold that are gone, publishes what is due or was never published, moves on what is overdue.

    The heart has told what waited on this machine's disk with its first beat. A worker whose database is away waits
    here: it could run nothing anyway, and what broke meanwhile comes first. Raises SystemExit when the database that
    comes back is not at this release's revision.
    """
    gov = bootstrap.governance()
    while True:
        try:
            database.check(gov)
            swept, overdue, sent = recover(app, gov), escalate(app, gov), relay(app, gov)
            heart.ready()
        except SchemaMismatch as problem:
            raise SystemExit(str(problem)) from problem
        except StoreUnavailable as problem:
            log.warning("no traffic yet: the database is away", worker=heart.worker_id, problem=str(problem))
            time.sleep(gov.limits.heartbeat_s)
        else:
            log.info("takes traffic", worker=heart.worker_id, recovery=swept, escalation=overdue, published=sent)
            return
