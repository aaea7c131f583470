"""`acp approvals`: the requests that wait for a person, and the person's answer."""

from collections.abc import Callable

import click

from acp_tasks.cli import output
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import RELAY_WILL, decider, governance, publish_decision
from acp_tasks.cli.group import Exit, exit_code
from governance.core.ledger import Unit
from governance.core.tickets import TicketState
from governance.errors import GovernanceError
from governance.operations import decide, reports
from governance.operations.context import Governance
from governance.operations.decide import Decided
from governance.operations.reports import TicketLine


@click.group()
def approvals() -> None:
    """Requests that wait for a person."""


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also the decided and expired ones.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=200, show_default=True, help="How many, at most.")
@output.json_option
def list_(everything: bool, limit: int) -> None:
    """Open requests, the one that expires first on top."""
    found = reports.list_tickets(governance(), state=None if everything else TicketState.PENDING, limit=limit)
    if output.wants_json():
        output.write_json({"approvals": [_document(line) for line in found]})
        return
    output.write_table(
        (
            "TICKET",
            "ACTION",
            "NAME",
            "STATE",
            "RISK",
            "RESOURCE",
            "COST",
            "AGENT",
            "PAYER",
            "EXPIRES",
            "WHY",
            "ARGUMENTS",
        ),
        (
            (
                line.id,
                line.action_id,
                line.action_name,
                line.state,
                line.risk,
                line.resource,
                output.amount(Unit.COST, line.cost_micros),
                line.agent_id,
                output.payer(line),
                output.when(line.expires_us),
                f"{line.rule}: {line.reason}",
                output.arguments_of(line.message),
            )
            for line in found
        ),
        empty="nothing waits for a person",
    )


@approvals.command()
@click.argument("refs", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", help="Kept in the trail.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this decision harmless; for one ID.")
@output.json_option
def approve(refs: tuple[str, ...], reason: str | None, command_id: str | None) -> None:
    """Let actions run, by the ID of the ticket or of the action; every limit is checked again when they do."""
    _decide(
        refs,
        command_id,
        lambda gov, ref: decide.approve(gov, ref, by=decider(), reason=reason, command_id=command_id),
    )


@approvals.command()
@click.argument("refs", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Reaches the agent that asked.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this decision harmless; for one ID.")
@output.json_option
def deny(refs: tuple[str, ...], reason: str, command_id: str | None) -> None:
    """Refuse actions, by the ID of the ticket or of the action."""
    _decide(
        refs,
        command_id,
        lambda gov, ref: decide.deny(gov, ref, by=decider(), reason=reason, command_id=command_id),
    )


def _decide(refs: tuple[str, ...], command_id: str | None, decision: Callable[[Governance, str], Decided]) -> None:
    """Decides one after the other and reports each; the first refusal gives the exit code, the others go on."""
    if command_id is not None and len(refs) > 1:
        raise click.UsageError("--command-id names one decision: give one ID with it")
    gov = governance()
    decisions: list[object] = []
    errors: list[object] = []
    code = Exit.OK
    for ref in refs:
        try:
            decisions.append(_decided(gov, decision(gov, ref)))
        except GovernanceError as error:
            if len(refs) == 1:
                raise
            click.echo(f"acp: {error}", err=True)
            errors.append({"id": ref, **output.error_document(error)})
            code = code or exit_code(error)
            if exit_code(error) is Exit.NOT_READY:
                break
    if output.wants_json():
        output.write_json({"decisions": decisions, "errors": errors})
    click.get_current_context().exit(code)


def _decided(gov: Governance, decided: Decided) -> dict[str, object]:
    published = None if decided.repeated else publish_decision(gov, decided)
    if not output.wants_json():
        click.echo(f"action {decided.action_id} is {decided.state}{' (decided before)' if decided.repeated else ''}")
        if published is False:
            click.echo(RELAY_WILL)
    return {**output.plain(decided), "published": published}


def _document(line: TicketLine) -> dict[str, object]:
    return {**output.plain(line), "arguments": output.arguments_of(line.message)}
