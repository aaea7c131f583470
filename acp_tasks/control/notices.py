"""Notices: tells the configured webhook of requests, escalations, decisions and alerts."""

from celery import Celery

from acp_tasks import bootstrap, webhook
from governance.operations.context import Governance


def tell(app: Celery, gov: Governance) -> int:
    """Returns how many notices were told; nothing to do without ACP_WEBHOOK_URL."""
    receiver = webhook.receiver(bootstrap.parts().settings)
    return webhook.tell(gov, receiver) if receiver is not None else 0
