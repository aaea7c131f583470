"""Checkpoints: a restore point of every stream that works, by the clock."""

from celery import Celery

from acp_tasks import bootstrap
from governance.operations.checkpoints import save_due
from governance.operations.context import Governance


def checkpoint(app: Celery, gov: Governance) -> int:
    """Returns how many were taken."""
    every_s = bootstrap.parts().settings.checkpoint_every_s
    return len(save_due(gov, gov.clock.span_us(every_s), "checkpoints")) if every_s else 0
