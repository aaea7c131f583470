"""`acp tokens`: who may decide, and how they prove it."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import VARIABLE, governance, presented, principal
from acp_tasks.cli.times import instant_us
from governance.operations.principals import create_token, list_tokens, revoke_token


@click.group()
def tokens() -> None:
    """Who may decide."""


@tokens.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    help="viewer, approver, approver:ROLE, operator or admin; may be given several times.",
)
@click.option("--expires", metavar="WHEN", help="A duration such as 30d, or an instant. Without it: until revoked.")
@output.json_option
def create(name: str, roles: tuple[str, ...], expires: str | None) -> None:
    """Make a token for NAME. It is shown once, and kept nowhere.

    Needs an admin; while there is none, the first admin's token needs nobody.
    """
    gov = governance()
    expires_us = instant_us("--expires", expires, gov.clock.now_us()) if expires else None
    made = create_token(gov, principal=name, roles=list(roles), by=presented(), expires_us=expires_us)
    if output.wants_json():
        output.write_json({"id": made.id, "principal": made.principal, "roles": made.roles, "token": made.text})
        return
    click.echo(made.text)
    click.echo(f"{made.principal} presents it as {VARIABLE}; it is not shown again", err=True)


@tokens.command("list")
@output.json_option
def list_() -> None:
    """Every token, never its secret."""
    found = list_tokens(governance())
    if output.wants_json():
        output.write_json({"tokens": found})
        return
    output.write_table(
        ("TOKEN", "PRINCIPAL", "ROLES", "STATE", "CREATED", "BY", "EXPIRES"),
        (
            (
                line.id,
                line.principal,
                ", ".join(line.roles),
                line.state,
                output.when(line.created_us),
                line.created_by,
                output.when(line.expires_us),
            )
            for line in found
        ),
        empty="there are no tokens: acp tokens create NAME --role admin makes the first",
    )


@tokens.command()
@click.argument("token_id", metavar="ID")
@output.json_option
def revoke(token_id: str) -> None:
    """Make a token worthless at once."""
    whose = revoke_token(governance(), token_id, by=principal())
    if output.wants_json():
        output.write_json({"revoked": token_id, "principal": whose})
        return
    click.echo(f"token {token_id} of {whose} is worthless now")
