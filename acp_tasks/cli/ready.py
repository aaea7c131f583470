"""`acp ready`: a probe for orchestrators. It starts nothing, asks no worker, and reads two or three rows."""

import socket

import click

from acp_tasks import bootstrap, logs
from acp_tasks.cli import output
from acp_tasks.cli.context import SILENT, broker_problem
from acp_tasks.cli.group import Exit
from governance.config import load_settings
from governance.operations import database
from governance.operations.readiness import beat_missing, worker_missing

_OF = {"worker": worker_missing, "beat": beat_missing}


@click.command()
@click.option("--of", type=click.Choice(list(_OF)), default="worker", show_default=True, help="Who has to be ready.")
@output.json_option
def ready(of: str) -> None:
    """Exit code 0 when this machine's worker is ready, else 5 and why.

    Ready means: the database is there and at this release's revision, the broker answers, and a worker (or beat) of
    this host name has a heartbeat that is younger than the lease. A worker has also looked for what others left behind
    (dead workers' attempts, actions without a message, what is due or overdue) before it takes its first message.
    """
    logs.configure(SILENT)
    # Without the policy: whether it is accepted is the worker's affair, and it would have to be parsed every time.
    gov = bootstrap.assemble(load_settings().model_copy(update={"policy": None})).gov
    database.check(gov)
    missing = _OF[of](gov, socket.gethostname()) or broker_problem()
    if output.wants_json():
        output.write_json({"ready": missing is None, "missing": missing})
    else:
        click.echo("ready" if missing is None else f"not ready: {missing}")
    click.get_current_context().exit(Exit.OK if missing is None else Exit.NOT_READY)
