"""Rotation: opens the windows that begin soon, empties and closes those that are over."""

from celery import Celery

from governance.operations.context import Governance
from governance.operations.rotation import rotate


def turn_sessions(app: Celery, gov: Governance) -> dict[str, int]:
    """Returns how many sessions were opened and closed, and how many actions were carried over and given up."""
    done = rotate(gov, "rotation")
    return {
        "opened": len(done.opened),
        "carried": done.carried,
        "overstayed": done.overstayed.total(),
        "closed": len(done.closed),
    }
