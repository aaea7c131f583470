"""`acp identities`: the directory of users, teams and orgs, by which actions are charged."""

from pathlib import Path

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance, principal
from governance.core.identity import Identity, Part
from governance.directory_file import read_directory
from governance.errors import InvalidOption
from governance.operations import directory

_LINES_MAX = 100_000


@click.group()
def identities() -> None:
    """Who belongs where: users, teams and orgs."""


@identities.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--command-id", metavar="ID", help="Repeating the call with the same id and file changes nothing.")
@output.json_option
def load(file: Path, command_id: str | None) -> None:
    """Put the directory in FILE in place of the present one, as a whole.

    A file with any error is refused as a whole, with line and path. Whoever is not in the file is not known any more.
    """
    gov = governance()
    loaded = directory.load(gov, read_directory(file), by=principal(), command_id=command_id)
    if output.wants_json():
        output.write_json(loaded)
        return
    counts = f"{loaded.users} users in {loaded.teams} teams of {loaded.orgs} orgs"
    if loaded.repeated:
        click.echo(f"{counts}: this command had loaded them before, and nothing was changed")
    elif loaded.hash == loaded.hash_before:
        click.echo(f"{counts}, the same as before")
    else:
        click.echo(f"{counts}, in place of {(loaded.hash_before or 'nothing')[:12]}")


@identities.command("list")
@click.option("--org", metavar="ORG", help="Only this org's.")
@click.option("--team", metavar="TEAM", help="Only this team's.")
@click.option("--limit", type=click.IntRange(1, _LINES_MAX), default=1000, show_default=True, help="How many, at most.")
@output.json_option
def list_(org: str | None, team: str | None, limit: int) -> None:
    """Every user with their team and its org."""
    gov = governance()
    line = directory.in_place(gov)
    found = directory.list_members(gov, org=org, team=team, limit=limit)
    if output.wants_json():
        output.write_json({"directory": line, "members": found})
        return
    if line is not None:
        said = f"{line.users} users in {line.teams} teams of {line.orgs} orgs, {line.hash[:12]}"
        click.echo(f"{said}, loaded {output.when(line.loaded_us)} by {output.cell(line.loaded_by)}\n")
    output.write_table(
        ("ORG", "TEAM", "USER"),
        ((one.org, one.team, one.user) for one in found),
        empty="the directory is empty: acp identities load FILE fills it" if line is None else "none",
    )


@identities.command()
@click.argument("user", required=False)
@click.option("--team", metavar="TEAM", help="The team that an action claims.")
@click.option("--org", metavar="ORG", help="The org that an action claims.")
@output.json_option
def show(user: str | None, team: str | None, org: str | None) -> None:
    """Whom an action of USER, or of a team, is charged to, and what the directory filled in."""
    if user is None and team is None:
        raise InvalidOption("user", None, "a user, or --team")
    resolved = directory.show_identity(governance(), Identity(user, team, org))
    document = {
        **output.plain(resolved.identity),
        "filled": sorted(resolved.filled),
        "contradiction": resolved.contradiction,
    }
    if output.wants_json():
        output.write_json(document)
        return
    shown = {
        str(part): f"{getattr(resolved.identity, part)}{' (by the directory)' if part in resolved.filled else ''}"
        for part in Part
        if getattr(resolved.identity, part) is not None
    }
    output.write_fields({**shown, "refused": resolved.contradiction})
