"""Sealing: numbers and chains the events written since the last tick."""

from celery import Celery

from governance.operations import audit
from governance.operations.context import Governance


def seal(app: Celery, gov: Governance) -> int:
    """Returns how many events were sealed."""
    return audit.seal(gov)
