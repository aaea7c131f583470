"""`acp budget`: what every window may use, has used and holds."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from governance.operations import reports
from governance.operations.reports import BudgetLine

_BAR = 20


@click.group()
def budget() -> None:
    """What every open window may still use."""


@budget.command()
@click.option("--session", "session_id", metavar="ID", help="One session, also one that is over.")
@output.json_option
def show(session_id: str | None) -> None:
    """Limit, posted, held and left of the windows that are open now."""
    found = reports.list_budgets(governance(), session_id=session_id)
    if output.wants_json():
        output.write_json({"budgets": [{**output.plain(line), "left": line.left} for line in found]})
        return
    output.write_table(
        ("BUDGET", "UNIT", "USED", "LIMIT", "POSTED", "HELD", "LEFT", "RESETS"),
        (
            (
                f"{line.scope} {line.scope_id}",
                line.unit,
                bar(line),
                output.amount(line.unit, line.limit_amount),
                output.amount(line.unit, line.posted),
                output.amount(line.unit, line.held),
                output.amount(line.unit, line.left),
                output.when(line.window_end_us),
            )
            for line in found
        ),
        empty="no window is open: the first action of a stream opens one",
    )


def bar(line: BudgetLine) -> str:
    """Posted and held as parts of the limit, `#` and `=`."""
    if line.limit_amount is None:
        return "-" * _BAR
    limit = max(line.limit_amount, 1)
    posted = min(_BAR, -(-line.posted * _BAR // limit))
    held = min(_BAR, -(-(line.posted + line.held) * _BAR // limit)) - posted
    return "#" * posted + "=" * held + "." * (_BAR - posted - held)
