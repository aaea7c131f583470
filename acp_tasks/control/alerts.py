"""Alerts: looks at rates, ages and budgets, raises what is new, clears what is gone, and has apprise pass it on.

The signed webhook hears of alerts as of everything else: see `acp_tasks.control.notices`.
"""

from celery import Celery

from acp_tasks import bootstrap, push
from governance.operations.alerts import watch
from governance.operations.context import Governance


def warn(app: Celery, gov: Governance) -> dict[str, object]:
    """Returns the alerts that were raised, the findings that are gone, and how many alerts were passed on."""
    settings = bootstrap.parts().settings
    watched = watch(gov, bootstrap.thresholds(settings))
    return {"raised": list(watched.raised), "cleared": list(watched.cleared), "pushed": push.push(gov, settings)}
