"""`acp doctor`: the effective settings, what is ready, and what to do about the rest."""

import click

from acp_tasks import logs
from acp_tasks.cli import output
from acp_tasks.cli.checks import Finding, Status, examine
from acp_tasks.cli.context import SILENT
from acp_tasks.cli.group import Exit
from governance.config import load_settings

_MARKS = {Status.OK: "ok  ", Status.WARN: "warn", Status.FAIL: "FAIL"}
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@output.json_option
def doctor() -> None:
    """Say what is ready, and what to do about the rest; exit code 5 when something is not."""
    settings = load_settings()
    logs.configure(SILENT)
    shown = settings.masked()
    if not output.wants_json():
        output.write_fields({f"ACP_{name.upper()}": value for name, value in shown.items()})
        click.echo()
    findings: list[Finding] = []
    for finding in examine(settings):
        findings.append(finding)
        if not output.wants_json():
            _write(finding)
    ready = all(finding.status is not Status.FAIL for finding in findings)
    if output.wants_json():
        output.write_json({"ok": ready, "settings": shown, "checks": findings})
    click.get_current_context().exit(Exit.OK if ready else Exit.NOT_READY)


def _write(finding: Finding) -> None:
    click.secho(_MARKS[finding.status], fg=_COLOURS[finding.status], nl=False)
    first, *more = map(output.cell, finding.detail.splitlines())
    click.echo(f"  {finding.name}: {first}")
    for line in more:
        click.echo(f"      {line}")
    if finding.advice:
        click.echo(f"      -> {finding.advice}")
