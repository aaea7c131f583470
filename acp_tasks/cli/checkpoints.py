"""`acp checkpoints`: restore points of the streams, compared and restored."""

import json
from typing import Any

import click

from acp_tasks import restore as fleet
from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import celery_app, governance, principal
from governance.operations import checkpoints as operations
from governance.operations import switches

_SHOWN_MAX = 60


@click.group()
def checkpoints() -> None:
    """Restore points: where an agent was, and what the fleet knew then."""


@checkpoints.command("list")
@click.option("--stream", metavar="NAME", help="Only this stream's.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many, at most.")
@output.json_option
def list_(stream: str | None, limit: int) -> None:
    """Checkpoints, the latest first."""
    found = operations.list_points(governance(), stream=stream, limit=limit)
    if output.wants_json():
        output.write_json({"checkpoints": found})
        return
    output.write_table(
        ("CHECKPOINT", "STREAM", "MADE", "BY", "CYCLE", "STATE", "SESSION"),
        (
            (
                point.id,
                point.stream,
                output.when(point.made_us),
                point.made_by,
                point.cycle,
                "superseded" if point.superseded_us is not None else "saved" if point.state is not None else "none",
                point.session_id,
            )
            for point in found
        ),
        empty="no checkpoint yet: agents save them, and the clock does",
    )


@checkpoints.command()
@click.argument("checkpoint_id", metavar="ID")
@output.json_option
def show(checkpoint_id: str) -> None:
    """One checkpoint: position, control state, the agent's state."""
    point = operations.find_point(governance(), checkpoint_id)
    if output.wants_json():
        output.write_json(point)
        return
    output.write_fields(
        {
            "checkpoint": point.id,
            "stream": point.stream,
            "session": point.session_id,
            "made": f"{output.when(point.made_us)} by {point.made_by}",
            "cycle": str(point.cycle) if point.cycle is not None else None,
            "position": f"after event {point.event_id}",
            "superseded": f"by {point.superseded_by}, at {output.when(point.superseded_us)}"
            if point.superseded_by is not None
            else None,
            "digest": point.digest,
        }
    )
    for title, content in (("control state", point.control), ("agent's state", point.state)):
        click.echo(f"\n{title}")
        for line in json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True).splitlines():
            click.echo(output.cell(line))


@checkpoints.command()
@click.argument("before_id", metavar="BEFORE")
@click.argument("after_id", metavar="AFTER")
@output.json_option
def diff(before_id: str, after_id: str) -> None:
    """What differs between two checkpoints, place by place."""
    found = operations.diff(governance(), before_id, after_id)
    if output.wants_json():
        output.write_json({"differences": found})
        return
    output.write_table(
        ("PLACE", "BEFORE", "AFTER"),
        ((one.path, _short(one.before), _short(one.after)) for one in found),
        empty="they say the same",
    )


@checkpoints.command()
@click.argument("checkpoint_id", metavar="ID")
@click.option("--reason", required=True, help="Kept in the trail.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=switches.GRACE_S,
    show_default=True,
    help="Seconds that a running body has before its process is killed.",
)
@output.json_option
def restore(checkpoint_id: str, reason: str, grace: float) -> None:
    """Give an agent its state back, in a new session of its stream.

    What came after is stopped and superseded; what was spent stays spent, and what was done stays done.
    """
    said = (lambda _: None) if output.wants_json() else click.echo
    by = principal()
    report = fleet.restore(celery_app(), governance(), checkpoint_id, reason=reason, by=by, grace_s=grace, said=said)
    if output.wants_json():
        output.write_json({**output.plain(report.restored), "stopped": output.plain(report.stopped)})
        return
    restored = report.restored
    click.echo(
        f"{len(restored.cancelled)} waiting actions cancelled, {restored.left} others stay as they are: "
        f"acp events replay --session {restored.session_id} says what was restored"
    )


def _short(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
