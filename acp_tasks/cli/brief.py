"""The brief of a request, written out for people."""

import click

from acp_tasks.cli import output
from acp_tasks.cli.waiting import asked
from governance.core.approvals import Vote
from governance.core.briefs import AskedOf, Brief, BudgetEffect, What
from governance.core.ledger import Unit
from governance.core.tickets import TicketState

_NO_AGENT = "no agent is recorded"


def document(found: Brief) -> dict[str, object]:
    """The brief as JSON."""
    budgets = [{**output.plain(budget), "fits": budget.fits} for budget in found.budgets]
    return {**output.plain(found), "budgets": budgets}


def write(found: Brief) -> None:
    """Section after section, the decision's own matter first."""
    _section("what", _what(found))
    changed = "has changed since: whatever it says now is asked again when the action is to run"
    _section(
        "why",
        {
            "rule": found.why.rule,
            "reason": found.why.reason,
            "policy": changed if found.why.policy_changed else None,
        },
    )
    _section("who", _who(found))
    _section("request", _asked_of(found.ticket))
    click.echo("\nbudgets")
    _budgets(found)
    click.echo("\nthe agent's latest other actions")
    output.write_table(
        ("ID", "NAME", "STATE", "RESOURCE", "CREATED"),
        ((one.id, one.name, one.state, one.resource, output.when(one.created_us)) for one in found.recent),
        empty="none" if found.who.agent_id else _NO_AGENT,
    )
    click.echo("\nearlier decisions by this rule on this action name")
    output.write_table(
        ("TICKET", "DECISION", "BY", "REASON", "DECIDED"),
        ((one.ticket_id, one.decision, one.by, one.reason, output.when(one.decided_us)) for one in found.earlier),
        empty="none",
    )


def _section(name: str, values: dict[str, object]) -> None:
    click.echo(("" if name == "what" else "\n") + name)
    output.write_fields(values)


def _what(found: Brief) -> dict[str, object]:
    what = found.what
    return {
        "summary": what.summary,
        "action": f"{what.action_id} ({what.action_state})",
        "name": what.action_name,
        "resource": what.resource,
        "arguments": dict(what.arguments),
        "edited": "; ".join(_edits(what)) or None,
        "risk": found.risk,
        "model": found.model,
        "expected cost": output.amount(Unit.COST, found.cost_micros),
        "expected tokens": output.amount(Unit.TOKENS, found.tokens),
        "digest": what.digest,
    }


def _edits(what: What) -> list[str]:
    return [f"by {edit.by} at {output.when(edit.at_us)}" for edit in what.edits]


def _who(found: Brief) -> dict[str, object]:
    who = found.who
    return {
        "agent": who.agent_id,
        "user": who.user,
        "team": who.team,
        "org": who.org,
        "session": who.session_id,
        "stream": who.stream,
        "correlation id": who.correlation_id,
    }


def _asked_of(ticket: AskedOf) -> dict[str, object]:
    pending = ticket.state is TicketState.PENDING
    return {
        "ticket": ticket.id,
        "state": ticket.state,
        "level": f"{ticket.level + 1} of {ticket.levels}",
        "asked": asked(ticket.roles),
        "approvals": f"{len(ticket.votes)} of {ticket.wanted}",
        "approved by": "; ".join(map(_vote, ticket.votes)) or None,
        "requester": "may approve" if ticket.requester_may_approve else "may not approve",
        "requested": output.when(ticket.requested_us),
        "due": output.when(ticket.due_us),
        "expires": output.when(ticket.expires_us),
        "if nobody answers" if pending else "outcome": ticket.then,
        "decided by": ticket.decided_by,
        "decision reason": ticket.decision_reason,
    }


def _vote(vote: Vote) -> str:
    wants = f", with {vote.grant}" if vote.grant is not None else ""
    return f"{vote.by} at {output.when(vote.at_us)}{wants}" + (f": {vote.reason}" if vote.reason else "")


def _budgets(found: Brief) -> None:
    if found.charged_to is not None:
        click.echo(f"of session {output.cell(found.charged_to)}, which it would be charged to now")
    output.write_table(
        ("BUDGET", "BEFORE", "AFTER", "LIMIT", "RESETS", ""),
        map(_budget, found.budgets),
        empty="no window of its stream is open, or it waits no more: acp budget show lists the open ones",
    )


def _budget(budget: BudgetEffect) -> tuple[object, ...]:
    return (
        budget.unit,
        output.amount(budget.unit, budget.before),
        output.amount(budget.unit, budget.after),
        output.amount(budget.unit, budget.limit_amount),
        output.when(budget.resets_us),
        "" if budget.fits else "does not fit",
    )
