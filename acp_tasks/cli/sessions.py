"""`acp sessions`: the control windows of the streams, and ending one early."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import governance, principal
from governance.operations import rotation


@click.group()
def sessions() -> None:
    """Control windows: what is open, what was closed with which summary."""


@sessions.command("list")
@click.option("--stream", metavar="NAME", help="Only this stream's.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many, at most.")
@output.json_option
def list_(stream: str | None, limit: int) -> None:
    """Sessions, the latest first."""
    found = rotation.list_sessions(governance(), stream=stream, limit=limit)
    if output.wants_json():
        output.write_json({"sessions": found})
        return
    output.write_table(
        ("SESSION", "STATE", "BEGAN", "ENDS", "CLOSED", "POLICY"),
        (
            (
                line.id,
                line.state,
                output.when(line.window_start_us),
                output.when(line.window_end_us),
                output.when(line.closed_us),
                line.policy_hash[:12],
            )
            for line in found
        ),
        empty="no session yet: the first action of a stream opens one",
    )


@sessions.command()
@click.argument("session_id", metavar="ID")
@output.json_option
def show(session_id: str) -> None:
    """One session, with its summary once it is closed."""
    line = rotation.find_session(governance(), session_id)
    if output.wants_json():
        output.write_json(line)
        return
    click.echo(f"session {line.id} of stream {line.stream} is {line.state}")
    click.echo(f"window  {output.when(line.window_start_us)} to {output.when(line.window_end_us)}")
    click.echo(f"policy  {line.policy_hash}")
    if line.summary is None:
        click.echo("its summary is written when it is closed")
        return
    click.echo(f"closed  {output.when(line.closed_us)}")
    for unit, account in line.summary["accounts"].items():
        click.echo(
            f"posted  {output.amount(unit, account['posted'])} of {output.amount(unit, account['limit'])} {unit}"
        )
    for kind, times in line.summary["events"].items():
        click.echo(f"{times:>7} {kind}")


@sessions.command()
@click.option("--stream", required=True, metavar="NAME", help="Whose window is to end.")
@click.option("--reason", required=True, help="Kept in the trail.")
@output.json_option
def turn(stream: str, reason: str) -> None:
    """End a stream's window now, and open the next one with the present policy.

    What the aligned window has used counts on: a turn gives no fresh budget.
    """
    opened = rotation.turn(governance(), stream, reason=reason, by=principal())
    if output.wants_json():
        output.write_json({"session_id": opened.id, "policy_hash": opened.policy_hash})
        return
    click.echo(f"session {opened.id} is open with policy {opened.policy_hash[:12]}")
