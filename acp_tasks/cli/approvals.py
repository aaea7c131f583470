"""`acp approvals`: the requests that wait for a person, and the person's answer.

Several requests are decided together or not at all. What a decision released or ended is published afterwards.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from acp_tasks import bootstrap
from acp_tasks.cli import brief as briefs
from acp_tasks.cli import output, waiting
from acp_tasks.cli.actions import LIMIT_MAX
from acp_tasks.cli.context import RELAY_WILL, celery_app, governance, principal, publish_decision
from acp_tasks.cli.times import duration_s, instant_us
from acp_tasks.edit import Edited, edit
from governance.core.actions import State
from governance.core.grants import GrantTerms
from governance.core.money import cost_micros
from governance.core.tickets import TicketState
from governance.errors import InvalidOption
from governance.operations import decide, reports
from governance.operations.brief import brief
from governance.operations.commanded import Decided
from governance.operations.context import Governance
from governance.operations.relay import not_published

_USES_MAX = 10**9


@click.group()
def approvals() -> None:
    """Requests that wait for a person."""


@approvals.command("list")
@click.option("--all", "everything", is_flag=True, help="Also the decided and expired ones.")
@click.option("--role", metavar="ROLE", help="Only what a holder of approver:ROLE may decide now.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=200, show_default=True, help="How many, at most.")
@output.json_option
def list_(everything: bool, role: str | None, limit: int) -> None:
    """Open requests, the one that expires first on top."""
    if everything and role is not None:
        raise click.UsageError("give --role or --all: what is decided already nobody may decide now")
    gov = governance()
    if role is not None:
        found = reports.list_decidable(gov, role=role.removeprefix("approver:"), limit=limit)
    else:
        found = reports.list_tickets(gov, state=None if everything else TicketState.PENDING, limit=limit)
    if output.wants_json():
        output.write_json({"approvals": [waiting.document(line) for line in found]})
        return
    output.write_table(waiting.COLUMNS, map(waiting.cells, found), empty=waiting.NOTHING)


@approvals.command()
@click.argument("ref", metavar="ID")
@output.json_option
def show(ref: str) -> None:
    """Everything to know before deciding one request, by the ID of the ticket or of the action."""
    found = brief(governance(), ref)
    if output.wants_json():
        output.write_json(briefs.document(found))
    else:
        briefs.write(found)


@approvals.command()
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=1000, show_default=True, help="How many, at most.")
@output.json_option
def watch(interval: float, limit: int) -> None:
    """Open requests as they come and go, until Ctrl-C; in a pipe, a line for each that is new, changed or over."""
    waiting.watch(governance(), interval_s=interval, limit=limit)


@approvals.command()
@click.argument("refs", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", help="Kept in the trail; high and critical risk need one.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this decision harmless.")
@click.option(
    "--digest",
    metavar="START",
    help="How the digest begins that `show` printed: refused when the arguments are others by now. Needed once edited.",
)
@click.option(
    "--edit",
    "edited",
    metavar="JSON|@FILE",
    help="Other keyword arguments (an object), or [args, kwargs]: approves these instead.",
)
@click.option("--for-session", is_flag=True, help="Also a grant: later actions like it need nobody, in its session.")
@click.option("--resource", metavar="PATTERN", help="The grant: only on resources that match this glob.")
@click.option("--max-uses", type=click.IntRange(0, _USES_MAX), metavar="N", help="The grant: for N actions; 0 is none.")
@click.option("--max-cost-usd", metavar="X", help="The grant: for X USD in all.")
@click.option("--until", metavar="WHEN", help="The grant: until an instant (ISO 8601), or for a time such as 2h.")
@output.json_option
def approve(
    refs: tuple[str, ...],
    reason: str | None,
    command_id: str | None,
    digest: str | None,
    edited: str | None,
    for_session: bool,
    resource: str | None,
    max_uses: int | None,
    max_cost_usd: str | None,
    until: str | None,
) -> None:
    """Let actions run, by the ID of the ticket or of the action: all or none. Every limit is checked again then."""
    gov = governance()
    terms = GrantTerms(
        for_session=for_session,
        resource=resource,
        max_uses=max_uses,
        max_cost_micros=cost_micros(max_cost_usd, "max-cost-usd") if max_cost_usd is not None else None,
        until_us=_until(gov, until, repeatable=command_id is not None) if until is not None else None,
    )
    by = principal()
    change, edited_digest = _edit(gov, refs, edited) if edited is not None else (None, None)
    decided = decide.approve_all(
        gov,
        _once(refs),
        by=by,
        reason=reason,
        command_id=command_id,
        seen=digest or edited_digest,
        edit=change.arguments if change is not None else None,
        grant=terms if terms != GrantTerms() else None,
    )
    if change is not None:
        _tell_edit(change)
    _report(gov, decided, granting=terms != GrantTerms())


@approvals.command()
@click.argument("refs", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Reaches the agent that asked.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this decision harmless.")
@output.json_option
def deny(refs: tuple[str, ...], reason: str, command_id: str | None) -> None:
    """Refuse actions, by the ID of the ticket or of the action: all or none."""
    gov = governance()
    _report(gov, decide.deny_all(gov, _once(refs), by=principal(), reason=reason, command_id=command_id))


@approvals.command()
@click.argument("ref", metavar="ID")
@click.option("--by", "more", metavar="TIME", required=True, help="How much longer, such as 30m.")
@click.option("--reason", required=True, help="Kept in the trail.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this command harmless.")
@output.json_option
def extend(ref: str, more: str, reason: str, command_id: str | None) -> None:
    """Give whoever is asked now, and with them the whole request, more time."""
    gov = governance()
    seconds = duration_s("by", more)
    decided = decide.extend(gov, ref, by=principal(), seconds=seconds, reason=reason, command_id=command_id)
    ticket = brief(gov, decided.action_id).ticket
    if output.wants_json():
        times = {"due": output.when(ticket.due_us), "expires": output.when(ticket.expires_us), "then": ticket.then}
        output.write_json({**output.plain(decided), "ticket": ticket.id, **times})
        return
    click.echo(f"ticket {ticket.id}{' (extended before)' if decided.repeated else ''}: {ticket.then}")


def _once(refs: Sequence[str]) -> list[str]:
    """An ID that was pasted twice is one request."""
    return list(dict.fromkeys(refs))


def _until(gov: Governance, text: str, *, repeatable: bool) -> int:
    return instant_us("until", text, gov.clock.now_us(), repeatable=repeatable)


def _edit(gov: Governance, refs: Sequence[str], text: str) -> tuple[Edited, str]:
    """The edit, and the digest of what it changes: positional arguments may stay as they are."""
    if len(refs) != 1:
        raise InvalidOption("edit", f"{len(refs)} tickets", "one ticket: other arguments are approved one by one")
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as problem:
            raise InvalidOption("edit", text, f"@ and a readable file of JSON ({problem})") from None
    asked = reports.find_ticket(gov, refs[0])
    bytes_max = bootstrap.parts().settings.arguments_bytes_max
    return edit(celery_app(), asked.message, asked.resource, text, bytes_max=bytes_max), asked.digest


def _tell_edit(change: Edited) -> None:
    if not change.checked:
        click.echo(
            f"acp: this app does not know {change.task}: only the worker sees if it takes these arguments", err=True
        )
    if not output.wants_json():
        click.echo(f"arguments: {output.cell(output.arguments_of(change.arguments.message))}")


def _report(gov: Governance, decided: Sequence[Decided], *, granting: bool = False) -> None:
    """Publishes what the decision released or ended, and says what became of each."""
    published = _published(gov, decided)
    missing = {one.action_id: _missing(gov, one) for one in decided}
    if output.wants_json():
        output.write_json(
            {
                "decisions": [
                    {**output.plain(one), "published": published.get(one.action_id), "missing": missing[one.action_id]}
                    for one in decided
                ]
            }
        )
        return
    for one in decided:
        click.echo(_told(one, missing[one.action_id]))
        if one.grant_id is not None:
            click.echo(f"grant {one.grant_id} stands for later actions like it: acp grants list")
        elif granting and one.state is State.PARKED:
            click.echo("no grant is given yet: everybody whose approval is wanted has to ask for the same")
    if False in published.values():
        click.echo(RELAY_WILL)


def _told(one: Decided, missing: int) -> str:
    before = " (decided before)" if one.repeated else ""
    if one.state is not State.PARKED:
        return f"action {one.action_id} is {one.state}{before}"
    wanted = f"{missing} more {'is' if missing == 1 else 'are'} wanted" if missing else "and no more is wanted by now"
    return f"action {one.action_id} waits on: this approval counts, {wanted}{before}"


def _missing(gov: Governance, one: Decided) -> int:
    """How many approvals a request still wants that was approved and not released."""
    if one.state is not State.PARKED:
        return 0
    ticket = reports.find_ticket(gov, one.action_id)
    return ticket.missing if ticket.state is TicketState.PENDING else 0


def _published(gov: Governance, decided: Sequence[Decided]) -> Mapping[str, bool]:
    """Whether each action's message went out; a broker that is away is tried once, the relay has the rest."""
    published: dict[str, bool] = {}
    for one in decided:
        if one.repeated or one.state is State.PARKED:
            continue
        if False in published.values():
            not_published(gov, one.action_id)
            published[one.action_id] = False
        else:
            published[one.action_id] = publish_decision(gov, one)
    return published
