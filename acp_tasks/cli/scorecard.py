"""`acp scorecard`: what came of the last hour, day, week or month, against the one before."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from governance.core.money import usd
from governance.core.trends import Line, Overall, Span, Unit
from governance.operations.rollups import Trend, trend

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = "·"
# Unrolled hours from which beat is probably not there; two are over now and then between two runs.
_BEHIND: Final = 3
_SECOND_MS: Final = 1000
_TIMES: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (_SECOND_MS, "s"))


@click.group()
def scorecard() -> None:
    """The trend of an hour, a day, a week, a month."""


@scorecard.command()
@click.option(
    "--window",
    type=click.Choice([str(span) for span in Span]),
    default=str(Span.DAY),
    show_default=True,
    help="How much; it ends with the last hour that is over. A month is 30 days.",
)
@click.option("--stream", metavar="STREAM", help="One stream; otherwise the whole fleet.")
@output.json_option
def show(window: str, stream: str | None) -> None:
    """One line a figure: latest bar, whole window, trend, change against the window before."""
    found = trend(governance(), Span(window), stream)
    if output.wants_json():
        output.write_json({"scorecard": _document(found) if found is not None else None})
        return
    if found is None:
        click.echo("no hour has been rolled up yet: beat's job acp.scorecards does it soon after each full hour")
        return
    write_trend(found)


def sparkline(points: Sequence[int | None]) -> str:
    """Bars from zero to the largest, which is full; a point where there is nothing to say, the lowest bar for zero."""
    highest = max((point for point in points if point is not None), default=0)
    return "".join(_GAP if point is None else _BLOCKS[_height(point, highest)] for point in points)


def _height(point: int, highest: int) -> int:
    # Whatever is more than nothing is seen to be.
    return max(1, round(point * (len(_BLOCKS) - 1) / highest)) if point else 0


def write_trend(found: Trend) -> None:
    """For people, to stdout."""
    whose = f"stream {found.stream}" if found.stream is not None else "all streams"
    bar = "an hour" if found.bar_hours == 1 else f"{found.bar_hours} hours"
    console = output.console()
    console.print(
        Text.assemble(
            (f"{found.window}", "bold"),
            f" of {output.cell(whose)}, {output.when(found.since_us)} to {output.when(found.until_us)}; a bar is {bar}",
        )
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("FIGURE", no_wrap=True)
    for title in ("LATEST", "WINDOW"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("TREND", no_wrap=True)
    table.add_column("CHANGE", justify="right", no_wrap=True)
    for line in found.lines:
        idle = not line.value and not line.before and not any(line.points)
        table.add_row(
            output.cell(line.name),
            _amount(line.unit, line.latest),
            _amount(line.unit, line.value),
            _said_of(line),
            Text(sparkline(line.points), style="" if idle else "cyan"),
            _change(line),
            style="dim" if idle else "",
        )
    console.print(table)
    if found.behind_hours >= _BEHIND:
        click.echo(f"acp: {found.behind_hours} hours are over and not rolled up: does beat run?", err=True)


def _said_of(line: Line) -> str:
    if line.overall is Overall.TOTAL:
        return "total"
    return "overall" if line.unit is Unit.MS else "average"


def _change(line: Line) -> str:
    if line.change_percent is not None:
        return f"{line.change_percent:+.0f} %" if line.value != line.before else "="
    if line.value and not line.before:
        return "new"
    return "=" if line.value == line.before and line.value is not None else ""


def _amount(unit: Unit, value: int | None) -> str:
    match (unit, value):
        case (_, None):
            return "-"
        case (Unit.MICROS, int()):
            return usd(value)
        case (Unit.MS, int()):
            return _time(value)
        case _:
            return f"{value:,}"


def _time(ms: int) -> str:
    """With two units, which is as exact as the figure: `850 ms`, `4.2 s`, `12m 30s`, `1d 4h`."""
    if ms < _SECOND_MS:
        return f"{ms} ms"
    if ms < 60 * _SECOND_MS:
        return f"{ms / _SECOND_MS:.1f} s"
    for (size, name), (smaller, smaller_name) in pairwise(_TIMES):
        if ms >= size:
            return f"{ms // size}{name} {ms % size // smaller}{smaller_name}"
    raise AssertionError("unreachable: a minute is the smallest size left")


def _document(found: Trend) -> object:
    return {
        "window": found.window,
        "stream": found.stream,
        "since": output.when(found.since_us),
        "until": output.when(found.until_us),
        "bar_hours": found.bar_hours,
        "behind_hours": found.behind_hours,
        "figures": [{**output.plain(line), "change_percent": line.change_percent} for line in found.lines],
    }
