"""`acp audit`: the proof that the trail and the ledger hold."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from acp_tasks.cli.group import Exit
from governance.operations import audit as operation


@click.group()
def audit() -> None:
    """Prove that the trail and the ledger hold."""


@audit.command()
@output.json_option
def verify() -> None:
    """Check every session's chain, every account's sums and every action's history; exit code 1 names what is wrong."""
    found = operation.verify(governance())
    if output.wants_json():
        output.write_json({"ok": found.ok, **output.plain(found)})
    else:
        for problem in found.problems:
            click.echo(output.cell(problem))
        click.echo(
            f"{'verified' if found.ok else 'NOT verified'}: {found.events} events, {found.actions} actions, "
            f"{found.accounts} accounts, {len(found.problems)} problems"
        )
    click.get_current_context().exit(Exit.OK if found.ok else Exit.FAILED)
