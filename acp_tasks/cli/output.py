"""What commands write: one JSON document with `--json`, else text and tables for people.

Names, reasons and arguments come from agents: they are shown as they are, never as markup or terminal commands.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from acp_tasks.message import unpack
from governance.core.events import StoredEvent
from governance.core.instants import iso
from governance.core.ledger import Unit
from governance.core.money import usd
from governance.errors import GovernanceError

_JSON = "acp_tasks.cli.json"
_PIPED_WIDTH = 4000
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Adds `--json`; the group's error handling sees it as well."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_JSON] = value

    return click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=remember, help="Write JSON to stdout."
    )(command)


def wants_json(ctx: click.Context | None = None) -> bool:
    return bool((ctx or click.get_current_context()).meta.get(_JSON))


def write_json(document: object) -> None:
    click.echo(json.dumps(plain(document), ensure_ascii=False, default=str))


def write_error(ctx: click.Context, error: GovernanceError) -> None:
    """The message on stderr; with `--json` also an object on stdout."""
    click.echo(f"acp: {error}", err=True)
    if wants_json(ctx):
        write_json(error_document(error))


def error_document(error: GovernanceError) -> dict[str, object]:
    return {"error": type(error).__name__, "message": str(error)}


def plain(value: object) -> Any:
    """Values as JSON has them. A dataclass's field `<name>_us` becomes `<name>`, as ISO 8601 text."""
    if isinstance(value, StoredEvent):
        return {**_fields(value), "payload": json.loads(value.payload)}
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _fields(value: Any) -> dict[str, object]:
    return dict(_field(field.name, getattr(value, field.name)) for field in fields(value))


def _field(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_us"):
        return name.removesuffix("_us"), None if value is None else iso(value)
    return name, plain(value)


def console() -> Console:
    """Stdout for people. In a pipe nothing is wrapped, so that every line can be searched."""
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for line in lines:
        made.add_row(*(cell(value) for value in line))
    return made


def write_table(columns: Sequence[str], lines: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table of cells, or `empty` when there are no lines."""
    made = table(columns, lines)
    if made.row_count:
        console().print(made)
    else:
        click.echo(empty)


def write_fields(values: Mapping[str, object]) -> None:
    """Names and values below each other; what is None is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            table.add_row(name, cell(value))
    console().print(table)


def cell(value: object) -> str:
    """A value as one cell; what could move a terminal's cursor is shown as an escape."""
    if value is None:
        return ""
    if isinstance(value, Enum):
        value = value.value
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (Mapping, list)) else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def when(at_us: int | None) -> str:
    return "" if at_us is None else iso(at_us)


def amount(unit: Unit, value: int | None) -> str:
    """An amount of `unit` as people read it; None is unlimited."""
    if value is None:
        return "unlimited"
    return usd(value) if unit is Unit.COST else f"{value:,}"


def payer(line: Any) -> str:
    """Who an action is charged to, as `user/team/org`."""
    return (
        "/".join(part or "-" for part in (line.user, line.team, line.org)) if line.user or line.team or line.org else ""
    )


def arguments_of(message: str) -> dict[str, object]:
    """The exact arguments of a recorded message."""
    _, args, kwargs, _ = unpack(message)
    return {"args": args, "kwargs": kwargs}
