"""What commands work with: the settings, governance over a database that is up to date, and the app to publish with."""

import logging
import os
import sys
from typing import Final

import click
from celery import Celery
from kombu.utils.url import maybe_sanitize_url

from acp_tasks import bootstrap, logs
from acp_tasks.publish import deliver
from acp_tasks.token_file import kept_token
from governance.core.principals import Principal
from governance.errors import NotAuthenticated
from governance.faults import point
from governance.operations import database
from governance.operations.commanded import Decided
from governance.operations.context import Governance
from governance.operations.principals import authenticate

# A command says what matters by itself; Celery's lines about a broker that is away would drown it.
SILENT = logging.CRITICAL + 1
_BROKER_S: Final = 3
VARIABLE: Final = "ACP_TOKEN"
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


def broker_problem() -> str | None:
    """Why the app's broker does not answer, without its password; None when it does."""
    app = celery_app()
    url = str(app.conf.broker_write_url or app.conf.broker_url)
    try:
        with app.connection_for_write() as connection:
            url = connection.as_uri()
            connection.ensure_connection(
                max_retries=1, interval_start=0, interval_step=0, interval_max=0, timeout=_BROKER_S
            )
    except Exception as problem:
        # Every transport has its own errors, and one that is not installed or does not exist has others.
        return f"{maybe_sanitize_url(url)} does not answer ({problem})"
    return None


def principal() -> Principal:
    """The owner of ACP_TOKEN, else of the state directory's token, else of one that is typed in.

    Raises NotAuthenticated.
    """
    parts = bootstrap.parts()
    text = os.environ.get(VARIABLE) or kept_token(parts.settings.state_dir)
    if not text:
        if not sys.stdin.isatty():
            raise NotAuthenticated(f"{VARIABLE} is not set, and there is nobody to ask")
        text = click.prompt("token", hide_input=True, err=True)
    return authenticate(parts.gov, text)


def presented() -> Principal | None:
    """Like `principal`, without asking: None when nothing is presented."""
    parts = bootstrap.parts()
    text = os.environ.get(VARIABLE) or kept_token(parts.settings.state_dir)
    return authenticate(parts.gov, text) if text else None


def publish_decision(gov: Governance, decided: Decided) -> bool:
    """Delivers what a decision released or ended; False when that is left to the relay."""
    point("after_decision_before_publish")
    return deliver(celery_app(), gov, decided.action_id)
