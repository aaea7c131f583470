"""`acp grants`: standing approvals, given with `acp approvals approve`, and how to end them."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import governance, principal
from governance.core.ledger import Unit
from governance.operations import grants as operations
from governance.operations.grants import GrantLine


@click.group()
def grants() -> None:
    """Standing approvals: later actions like an approved one need no person while they last."""


@grants.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are used up, over or revoked.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=200, show_default=True, help="How many, at most.")
@output.json_option
def list_(everything: bool, limit: int) -> None:
    """Grants, the latest first."""
    found = operations.list_grants(governance(), everything=everything, limit=limit)
    if output.wants_json():
        output.write_json({"grants": found})
        return
    output.write_table(
        ("GRANT", "STATE", "ACTION", "RULE", "FOR", "RESOURCE", "USED", "COST", "LASTS", "GIVEN", "BY", "TICKET"),
        (
            (
                line.id,
                line.state,
                line.action_name,
                line.rule,
                _for(line),
                line.resource or "any",
                f"{line.uses} of {'any' if line.max_uses is None else line.max_uses}",
                f"{output.amount(Unit.COST, line.cost_micros)} of {output.amount(Unit.COST, line.max_cost_micros)}",
                _lasts(line),
                output.when(line.created_us),
                line.created_by,
                line.ticket_id,
            )
            for line in found
        ),
        empty="no grants" if everything else "no grant lasts",
    )


@grants.command()
@click.argument("grant_id", metavar="ID")
@click.option("--reason", required=True, help="Kept in the trail.")
@output.json_option
def revoke(grant_id: str, reason: str) -> None:
    """End a grant: later actions ask a person again. What was admitted under it goes on."""
    operations.revoke(governance(), grant_id, by=principal(), reason=reason)
    if output.wants_json():
        output.write_json({"grant_id": grant_id, "state": "revoked"})
        return
    click.echo(f"grant {grant_id} is revoked")


def _for(line: GrantLine) -> str:
    return (
        ", ".join(
            f"{what} {name}" for what, name in (("agent", line.agent_id), ("user", line.user)) if name is not None
        )
        or "callers without agent and user"
    )


def _lasts(line: GrantLine) -> str:
    ends = [f"in session {line.session_id}"] if line.session_id is not None else []
    return " and ".join([*ends, f"until {output.when(line.until_us)}"] if line.until_us is not None else ends)
