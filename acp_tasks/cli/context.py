"""What commands work with: the settings, governance over a database that is up to date, and the app to publish with."""

import getpass
import logging

import click
from celery import Celery

from acp_tasks import bootstrap, logs
from acp_tasks.publish import deliver
from governance.faults import point
from governance.operations import database
from governance.operations.context import Governance
from governance.operations.decide import Decided

# A command says what matters by itself; Celery's lines about a broker that is away would drown it.
SILENT = logging.CRITICAL + 1
RELAY_WILL = "the broker is away: the relay publishes it when it is back"


def governance() -> Governance:
    """This process's governance. Raises SettingsInvalid, PolicyInvalid, StoreUnavailable, SchemaMismatch."""
    logs.configure(SILENT)
    gov = bootstrap.governance()
    database.check(gov)
    return gov


def celery_app() -> Celery:
    """The app of `celery -A app acp`, else the fleet's own."""
    given = getattr(click.get_current_context().find_root().obj, "app", None)
    if isinstance(given, Celery):
        return given
    # Imported here: the app is made from the settings at import, and ends the process when they are invalid.
    from acp_tasks.app import app

    return app


def decider() -> str:
    """Who decides: the person logged in to the operating system."""
    return f"user:{getpass.getuser()}"


def publish_decision(gov: Governance, decided: Decided) -> bool:
    """Delivers what a decision released or ended; False when that is left to the relay."""
    point("after_decision_before_publish")
    return deliver(celery_app(), gov, decided.action_id)
