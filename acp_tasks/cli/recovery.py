"""`acp recovery`: actions whose attempt vanished after its effect may have begun, and what became of them."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX, resolve
from acp_tasks.cli.context import governance
from governance.operations import doubts


@click.group()
def recovery() -> None:
    """Actions in doubt: whether their effect happened is for a person to say."""


@recovery.command("list")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=200, show_default=True, help="How many, at most.")
@output.json_option
def list_(limit: int) -> None:
    """What is in doubt, the oldest first."""
    found = doubts.list_doubts(governance(), limit=limit)
    if output.wants_json():
        output.write_json({"in_doubt": found})
        return
    output.write_table(
        ("ACTION", "NAME", "TRY", "COMMAND", "RESOURCE", "AGENT", "BEGAN", "WHY"),
        (
            (
                line.action_id,
                line.name,
                line.attempt,
                line.command_id,
                line.resource,
                line.agent_id,
                output.when(line.started_us),
                line.why,
            )
            for line in found
        ),
        empty="nothing is in doubt",
    )


recovery.add_command(resolve)
