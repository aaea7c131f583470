"""`acp recovery`: actions whose attempt vanished after its effect may have begun, and what became of them."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import RELAY_WILL, governance, principal, publish_decision
from governance.operations import doubts
from governance.operations.resolve import resolve as resolve_action


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


@recovery.command()
@click.argument("action_id", metavar="ID")
@click.option("--as", "outcome", metavar="OUTCOME", required=True, help="succeeded, failed or retry.")
@click.option("--reason", required=True, help="How you know.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this command harmless.")
@output.json_option
def resolve(action_id: str, outcome: str, reason: str, command_id: str | None) -> None:
    """Say what became of an action in doubt: whether its effect happened, or that it shall run again."""
    gov = governance()
    decided = resolve_action(gov, action_id, outcome=outcome, by=principal(), reason=reason, command_id=command_id)
    published = None if decided.repeated else publish_decision(gov, decided)
    if output.wants_json():
        output.write_json({**output.plain(decided), "published": published})
        return
    click.echo(f"action {decided.action_id} is {decided.state}{' (decided before)' if decided.repeated else ''}")
    if published is False:
        click.echo(RELAY_WILL)
