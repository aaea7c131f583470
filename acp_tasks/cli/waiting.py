"""Requests in lists: the table of `acp approvals list`, and the same live, or as lines, of `acp approvals watch`."""

import sys
import time
from collections.abc import Iterable
from typing import Final

import click
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from acp_tasks.cli import output
from governance.core.ledger import Unit
from governance.core.tickets import TicketState
from governance.operations import reports
from governance.operations.context import Governance
from governance.operations.reports import TicketLine

NOTHING: Final = "nothing waits for a person"
COLUMNS: Final = (
    "TICKET",
    "ACTION",
    "NAME",
    "STATE",
    "LEVEL",
    "ASKED",
    "VOTES",
    "RISK",
    "RESOURCE",
    "COST",
    "AGENT",
    "PAYER",
    "DUE",
    "EXPIRES",
    "WHY",
    "ARGUMENTS",
)


def cells(line: TicketLine) -> tuple[object, ...]:
    """A request's cells under COLUMNS."""
    return (
        line.id,
        line.action_id,
        line.action_name,
        line.state,
        f"{line.level + 1}/{line.levels}",
        asked(line.roles),
        f"{len(line.votes)}/{line.wanted}",
        line.risk,
        line.resource,
        output.amount(Unit.COST, line.cost_micros),
        line.agent_id,
        output.payer(line),
        output.when(line.due_us),
        output.when(line.expires_us),
        f"{line.rule}: {line.reason}",
        output.arguments_of(line.message),
    )


def document(line: TicketLine) -> dict[str, object]:
    """A request as JSON."""
    return {**output.plain(line), "missing": line.missing, "arguments": output.arguments_of(line.message)}


def asked(roles: Iterable[str]) -> str:
    return "|".join(roles) or "any approver"


def watch(gov: Governance, *, interval_s: float, limit: int) -> None:
    """Shows open requests until Ctrl-C: a table on a terminal, else a line for each that is new, changed or over."""
    try:
        if sys.stdout.isatty() and not output.wants_json():
            _table(gov, interval_s, limit)
        else:
            _lines(gov, interval_s, limit)
    except KeyboardInterrupt:
        click.echo(err=True)


def _table(gov: Governance, interval_s: float, limit: int) -> None:
    with Live(console=output.console(), auto_refresh=False) as live:
        while True:
            live.update(_rendered(_open(gov, limit)), refresh=True)
            time.sleep(interval_s)


def _rendered(found: list[TicketLine]) -> RenderableType:
    if not found:
        return Text(NOTHING)
    return output.table(
        ("TICKET", "NAME", "RISK", "RESOURCE", "COST", "AGENT", "ASKED", "VOTES", "DUE"),
        (
            (
                line.id,
                line.action_name,
                line.risk,
                line.resource,
                output.amount(Unit.COST, line.cost_micros),
                line.agent_id,
                asked(line.roles),
                f"{len(line.votes)}/{line.wanted}",
                output.when(line.due_us),
            )
            for line in found
        ),
    )


def _lines(gov: Governance, interval_s: float, limit: int) -> None:
    seen: dict[str, TicketLine] = {}
    while True:
        found = {line.id: line for line in _open(gov, limit)}
        for id_ in [id_ for id_ in seen if id_ not in found]:
            now = reports.find_ticket(gov, id_)
            if now.state is TicketState.PENDING:
                # Others expire before it now, more than are looked at.
                found[id_] = now
            else:
                _write("ended", now)
        for id_, line in found.items():
            if id_ not in seen:
                _write("new", line)
            elif _position(seen[id_]) != _position(line):
                _write("changed", line)
        seen = found
        time.sleep(interval_s)


def _open(gov: Governance, limit: int) -> list[TicketLine]:
    return reports.list_tickets(gov, state=TicketState.PENDING, limit=limit)


def _position(line: TicketLine) -> tuple[object, ...]:
    return line.level, line.votes, line.due_us, line.expires_us, line.digest


def _write(change: str, line: TicketLine) -> None:
    if output.wants_json():
        output.write_json({"change": change, **document(line)})
        return
    parts = (
        line.id,
        line.action_name,
        line.risk,
        line.resource,
        output.amount(Unit.COST, line.cost_micros),
        _happened(line),
    )
    click.echo("  ".join([change.ljust(7), *(output.cell(part) for part in parts if part is not None)]))


def _happened(line: TicketLine) -> str:
    if line.state is not TicketState.PENDING:
        return f"{line.state} by {line.decided_by}: {line.decision_reason or 'without a reason'}"
    votes = f"{len(line.votes)} of {line.wanted} approvals"
    return f"{asked(line.roles)} is asked until {output.when(line.due_us)}, {votes}"
