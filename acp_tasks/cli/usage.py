"""`acp usage`: who used how much, and whether the limits fit it."""

import csv
import sys

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from governance.core.ledger import Unit
from governance.core.money import usd
from governance.core.trends import Span
from governance.core.usage import By, Used
from governance.errors import InvalidOption
from governance.operations.usage import UsageReport, fits, used

_BAR = 24
_NOBODY = "(not said)"


@click.group(invoke_without_command=True)
@click.option("--by", type=click.Choice([str(by) for by in By]), default=str(By.TEAM), show_default=True)
@click.option(
    "--window",
    type=click.Choice([str(span) for span in Span]),
    default=str(Span.DAY),
    show_default=True,
    help="How much, until now. A month is 30 days.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout; money in USD.")
@output.json_option
@click.pass_context
def usage(ctx: click.Context, by: str, window: str, as_csv: bool) -> None:
    """What was really used: attempts that ran, tokens, cost; by model, the ones that were called, else declared."""
    if ctx.invoked_subcommand is not None:
        return
    if as_csv and output.wants_json():
        raise InvalidOption("csv", "with --json", "one of them")
    report = used(governance(), By(by), Span(window))
    if output.wants_json():
        output.write_json(report)
    elif as_csv:
        _write_csv(report)
    else:
        _write(report)


@usage.command()
@click.option("--window", type=click.Choice([str(span) for span in Span]), default=str(Span.WEEK), show_default=True)
@output.json_option
def summary(window: str) -> None:
    """Limits against the use of their windows: which is too tight, which too loose."""
    report = fits(governance(), Span(window))
    if output.wants_json():
        lines = [{**output.plain(line), "peak_percent": line.peak_percent} for line in report.limits]
        output.write_json({**output.plain(report), "limits": lines})
        return
    click.echo(f"{report.window}, {output.when(report.since_us)} to {output.when(report.until_us)}\n")
    output.write_table(
        ("BUDGET", "UNIT", "WINDOWS", "LIMIT", "PEAK", "", "MEAN", "FULL", "IT IS", ""),
        (
            (
                line.budget,
                line.unit,
                line.windows,
                output.amount(line.unit, line.limit),
                output.amount(line.unit, line.peak),
                _bar(line.peak, line.limit),
                output.amount(line.unit, line.mean),
                line.full,
                line.fit,
                line.advice,
            )
            for line in report.limits
        ),
        empty="no window with a limit: the first action of a stream opens one",
    )


def _write(report: UsageReport) -> None:
    click.echo(f"{report.window} by {report.by}, {output.when(report.since_us)} to {output.when(report.until_us)}\n")
    # Bars by cost; where nothing cost anything, by attempts.
    costs = any(line.cost_micros for line in report.lines)
    most = max((_weight(line, costs) for line in report.lines), default=0)
    output.write_table(
        (str(report.by).upper(), "ACTIONS", "TOKENS", "COST", ""),
        (
            (
                _NOBODY if line.name is None else line.name,
                f"{line.actions:,}",
                f"{line.tokens:,}",
                output.amount(Unit.COST, line.cost_micros),
                _bar(_weight(line, costs), most),
            )
            for line in report.lines
        ),
        empty="nothing was used",
    )


def _weight(line: Used, costs: bool) -> int:
    return line.cost_micros if costs else line.actions


def _bar(value: int, most: int) -> str:
    """A part of the largest; whatever is more than nothing is seen to be."""
    filled = min(_BAR, -(-value * _BAR // most)) if most else 0
    return "#" * filled + "." * (_BAR - filled)


def _write_csv(report: UsageReport) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([str(report.by), "actions", "tokens", "cost_usd"])
    for line in report.lines:
        # A name that a spreadsheet would take for a formula is text.
        name = line.name or ""
        writer.writerow(
            [
                f"'{name}" if name[:1] in "=+-@" and name else name,
                line.actions,
                line.tokens,
                usd(line.cost_micros).replace("$", "").replace(",", ""),
            ]
        )
