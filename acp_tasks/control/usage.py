"""Usage: tells once a week what was used, and which limits are too tight or too loose for it."""

from celery import Celery

from acp_tasks import bootstrap
from governance.core.windows import Period
from governance.operations.context import Governance
from governance.operations.summaries import summarize


def sum_up(app: Celery, gov: Governance) -> list[str]:
    """Returns the alerts by which it was told; nothing without ACP_USAGE_SUMMARY."""
    period = bootstrap.parts().settings.usage_summary
    return list(summarize(gov, Period(period))) if period else []
