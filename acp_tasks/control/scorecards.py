"""Scorecards: rolls up the hours that are over."""

from celery import Celery

from governance.operations.context import Governance
from governance.operations.rollups import roll_up


def keep_score(app: Celery, gov: Governance) -> dict[str, int]:
    """Returns how many hours were rolled up, and how many of the day before once more."""
    rolled = roll_up(gov)
    return {"hours": len(rolled.hours), "again": len(rolled.again)}
