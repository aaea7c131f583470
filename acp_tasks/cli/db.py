"""`acp db`: the schema of the database in the settings."""

import click

from acp_tasks.cli import output
from governance.config import load_settings
from governance.errors import StateDirUnusable
from governance.operations import database


@click.group()
def db() -> None:
    """Bring the database to this release's schema."""


@db.command()
@output.json_option
def upgrade() -> None:
    """Create or migrate the schema; safe when several do it at once, and when there is nothing to do."""
    settings = load_settings()
    if not settings.database_url:
        try:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StateDirUnusable(str(settings.state_dir), problem.strerror or str(problem)) from problem
    _write(str(settings.masked()["database_url"]), database.upgrade_at(settings.store_url))


@db.command()
@output.json_option
def check() -> None:
    """Exit code 5 when the database is away or behind."""
    settings = load_settings()
    _write(str(settings.masked()["database_url"]), database.check_at(settings.store_url))


def _write(url: str, revision: str) -> None:
    if output.wants_json():
        output.write_json({"database": url, "revision": revision})
    else:
        click.echo(f"{url} is at revision {revision}")
