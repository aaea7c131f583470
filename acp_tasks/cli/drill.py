"""`acp drill`: exercise the emergency procedures on the live fleet, and read what the exercises proved."""

from typing import Any

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import celery_app, governance, principal
from acp_tasks.cli.group import Exit
from acp_tasks.drills.backlog import TICKETS, TICKETS_MAX
from acp_tasks.drills.conduct import conduct
from acp_tasks.install import install
from governance.core.drills import THRESHOLD_MS_MAX, DrillReport, Kind
from governance.core.principals import OPERATOR
from governance.operations import drills
from governance.operations.principals import require


@click.group()
def drill() -> None:
    """Exercise the kill switch, the approval chains and recovery, on the live fleet and apart from its work."""


@drill.command()
@click.argument("kind", type=click.Choice([str(kind) for kind in Kind]))
@click.option(
    "--threshold-ms",
    type=click.IntRange(1, THRESHOLD_MS_MAX),
    help="How late a stop (2000), a step of a request (10000) or a second attempt (30000) may be; "
    "a number replaces the one in brackets.",
)
@click.option(
    "--tickets",
    type=click.IntRange(1, TICKETS_MAX),
    default=TICKETS,
    show_default=True,
    help="Requests that the approval-backlog drill opens.",
)
@output.json_option
def run(kind: str, threshold_ms: int | None, tickets: int) -> None:
    """Run a drill and report it; exit code 1 when it failed. Needs the role operator."""
    gov = governance()
    by = principal()
    require(by, OPERATOR)
    app = celery_app()
    # The drills' own tasks come with governance; the app's module may not have been imported yet.
    install(app)
    report = conduct(
        app,
        gov,
        Kind(kind),
        started_by=by.actor,
        threshold_ms=threshold_ms,
        tickets=tickets,
        said=lambda line: click.echo(line, err=True),
    )
    _write(report)
    click.get_current_context().exit(Exit.OK if report.passed else Exit.FAILED)


@drill.command("list")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many, at most.")
@output.json_option
def list_(limit: int) -> None:
    """Drills, the latest first."""
    found = drills.list_drills(governance(), limit=limit)
    if output.wants_json():
        output.write_json({"drills": found})
        return
    output.write_table(
        ("DRILL", "KIND", "STARTED", "BY", "VERDICT", "WHY"),
        (
            (
                line.id,
                line.kind,
                output.when(line.started_us),
                line.started_by,
                "running" if line.passed is None else _verdict(line.passed),
                "; ".join(line.failures),
            )
            for line in found
        ),
        empty="no drill has run yet: acp drill run kill",
    )


@drill.command()
@click.argument("drill_id", metavar="ID")
@output.json_option
def report(drill_id: str) -> None:
    """What a drill proved, step by step; exit code 1 when it failed."""
    found = drills.find_report(governance(), drill_id)
    _write(found)
    click.get_current_context().exit(Exit.OK if found.passed else Exit.FAILED)


def _write(report: DrillReport) -> None:
    if output.wants_json():
        output.write_json(report)
        return
    click.echo(f"{report.kind} drill {report.drill_id}: {_verdict(report.passed)}")
    output.write_table(
        ("STEP", "", "SEEN"),
        ((step.name, "ok" if step.passed else "FAILED", step.detail) for step in report.steps),
        empty="nothing was exercised",
    )
    click.echo()
    output.write_fields(
        {
            **{figure.name: _measured(figure.value, figure.unit) for figure in report.figures},
            "threshold": f"{report.threshold_ms} ms",
            "started": f"{output.when(report.started_us)} by {report.started_by}",
            "finished": output.when(report.finished_us),
        }
    )
    for part in report.evidence:
        click.echo(f"evidence: events {part.first_seq} to {part.last_seq} of session {part.session_id}")


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _measured(value: float | None, unit: str) -> Any:
    return None if value is None else f"{value:g} {unit}"
