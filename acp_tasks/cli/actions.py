"""`acp actions`: what agents asked for, what became of it, and the word of a person on what is in doubt."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import RELAY_WILL, governance, principal, publish_decision
from governance.core.actions import State
from governance.core.events import StoredEvent
from governance.core.ledger import Unit
from governance.operations import reports
from governance.operations.reports import ActionDetail, ActionReport
from governance.operations.resolve import resolve as resolve_action

LIMIT_MAX = 10_000


@click.group()
def actions() -> None:
    """What agents asked for, and what became of it."""


@actions.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only actions in this state.")
@click.option("--session", "session_id", metavar="ID", help="Only actions of this session.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many, at most.")
@output.json_option
def list_(state: str | None, session_id: str | None, limit: int) -> None:
    """Actions, the newest first."""
    found = reports.list_actions(
        governance(), state=State(state) if state else None, session_id=session_id, limit=limit
    )
    if output.wants_json():
        output.write_json({"actions": found})
        return
    output.write_table(
        ("ID", "ACTION", "STATE", "TRY", "RISK", "SESSION", "AGENT", "PAYER", "CREATED", "WHY"),
        (
            (
                line.id,
                line.name,
                line.state,
                line.attempt,
                line.risk,
                line.session_id,
                line.agent_id,
                output.payer(line),
                output.when(line.created_us),
                _why(line.rule, line.reason, line.error_type, line.error),
            )
            for line in found
        ),
        empty="no such actions",
    )


@actions.command()
@click.argument("action_id", metavar="ID")
@output.json_option
def show(action_id: str) -> None:
    """One action: its row, its ticket, what it spent, its calls of models, and everything that happened to it."""
    report = reports.show_action(governance(), action_id)
    if output.wants_json():
        output.write_json({**output.plain(report), "arguments": output.arguments_of(report.action.message)})
        return
    output.write_fields(_shown(report.action))
    if report.ticket is not None:
        click.echo("\nticket")
        output.write_fields(_ticket(report))
    click.echo("\nspent")
    output.write_table(
        ("ACCOUNT", "POSTED"),
        ((spent.account_id, output.amount(spent.unit, spent.posted)) for spent in report.spent),
        empty="nothing",
    )
    if report.model_calls:
        click.echo("\nmodel calls")
        output.write_table(
            ("AT", "TRY", "MODEL", "TIER", "OVERRIDE", "INPUT", "CACHED", "OUTPUT", "COST", "PRICES FROM", "FLAG"),
            (
                (
                    output.when(call.at_us),
                    call.attempt,
                    call.model,
                    call.tier,
                    call.override_id,
                    f"{call.tokens_input:,}",
                    f"{call.tokens_cached:,}",
                    f"{call.tokens_output:,}",
                    output.amount(Unit.COST, call.cost_micros),
                    call.price_table,
                    call.flag,
                )
                for call in report.model_calls
            ),
            empty="none",
        )
    click.echo("\nhistory")
    output.write_table(EVENT_COLUMNS, map(event_line, report.history), empty="no events")


EVENT_COLUMNS = ("AT", "SEQ", "KIND", "STATE", "TRY", "ACTOR", "PAYLOAD")


def event_line(event: StoredEvent) -> tuple[object, ...]:
    """The cells of an event."""
    return (
        output.when(event.at_us),
        event.seq,
        event.kind,
        event.state,
        event.attempt,
        event.actor,
        event.payload,
    )


def _shown(action: ActionDetail) -> dict[str, object]:
    held = output.amount(Unit.COST, action.cost_micros), output.amount(Unit.TOKENS, action.tokens)
    lease = f"{action.lease_worker} child {action.lease_child}" if action.lease_worker else None
    return {
        "action": action.id,
        "name": action.name,
        "state": action.state,
        "why": _why(action.rule, action.reason, action.error_type, action.error) or None,
        "guidance": action.guidance,
        "instead": action.suggest,
        "arguments": output.arguments_of(action.message),
        "result": action.result,
        "attempt": action.attempt,
        "idempotent": "yes" if action.idempotent else "no",
        "risk": action.risk,
        "resource": action.resource,
        "agent": action.agent_id,
        "payer": output.payer(action) or None,
        "session": action.session_id,
        "holds when it runs": f"{held[0]}, {held[1]} tokens",
        "command id": action.command_id,
        "correlation id": action.correlation_id,
        "lease": lease,
        **{
            name: output.when(at_us)
            for name, at_us in (
                ("created", action.created_us),
                ("published", action.published_us),
                ("not before", action.not_before_us),
                ("expires", action.expires_us),
                ("started", action.started_us),
                ("finished", action.finished_us),
                ("delivered", action.delivered_us),
            )
            if at_us is not None
        },
    }


def _ticket(report: ActionReport) -> dict[str, object]:
    ticket = report.ticket
    assert ticket is not None
    return {
        "id": ticket.id,
        "state": ticket.state,
        "asked because": f"{ticket.rule}: {ticket.reason}",
        "requested": output.when(ticket.requested_us),
        "expires": output.when(ticket.expires_us),
        "decided": output.when(ticket.decided_us) or None,
        "decided by": ticket.decided_by,
        "decision reason": ticket.decision_reason,
    }


def _why(rule: str | None, reason: str | None, error_type: str | None, error: str | None) -> str:
    if error_type:
        return f"{error_type}: {error}"
    return f"{rule}: {reason}" if rule and reason else reason or ""


@actions.command()
@click.argument("action_id", metavar="ID")
@click.option("--as", "outcome", metavar="OUTCOME", required=True, help="succeeded, failed or retry.")
@click.option("--reason", required=True, help="How you know.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this command harmless.")
@output.json_option
def resolve(action_id: str, outcome: str, reason: str, command_id: str | None) -> None:
    """Say what became of an action in doubt: whether its effect happened, or that it shall run again."""
    gov = governance()
    decided = resolve_action(gov, action_id, outcome=outcome, by=principal(), reason=reason, command_id=command_id)
    published = None if decided.repeated else publish_decision(gov, decided)
    if output.wants_json():
        output.write_json({**output.plain(decided), "published": published})
        return
    click.echo(f"action {decided.action_id} is {decided.state}{' (decided before)' if decided.repeated else ''}")
    if published is False:
        click.echo(RELAY_WILL)
