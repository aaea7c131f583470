"""`acp alerts`: what needs a person's attention, and where it is written what to do."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import governance
from governance.operations.alerts import AlertLine, list_alerts


@click.group()
def alerts() -> None:
    """What needs a person's attention, and the runbook for it."""


@alerts.command("list")
@click.option("--standing", is_flag=True, help="Only those whose finding is not gone.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many, at most.")
@output.json_option
def list_(standing: bool, limit: int) -> None:
    """Alerts, the latest first."""
    found = list_alerts(governance(), standing_only=standing, limit=limit)
    if output.wants_json():
        output.write_json({"alerts": found})
        return
    output.write_table(
        ("RAISED", "KIND", "", "ALERT", "RUNBOOK"),
        ((output.when(line.at_us), line.kind, _standing(line), line.id, line.details.get("runbook")) for line in found),
        empty="no alert stands" if standing else "no alert was ever raised",
    )


def _standing(line: AlertLine) -> str:
    if line.cleared_us is not None:
        return f"cleared {output.when(line.cleared_us)}"
    return "stands" if line.standing else ""
