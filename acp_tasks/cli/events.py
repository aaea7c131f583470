"""`acp events`: the audit trail, as it is written and as it is sealed."""

import time
from collections.abc import Iterable

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from governance.core.events import StoredEvent
from governance.operations import audit, reports
from governance.operations.context import Governance

_POLL_S = 0.5
_PAGE = 1000
# On PostgreSQL an event that was numbered earlier can become visible later: so far back it is looked for again.
_OVERLAP = 256


@click.group()
def events() -> None:
    """The audit trail."""


@events.command()
@click.option("-n", "count", type=click.IntRange(0, 10_000), default=20, show_default=True, help="How many.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@output.json_option
def tail(count: int, follow: bool) -> None:
    """The last events in the order in which they were written, sealed or not."""
    gov = governance()
    # One more than asked for tells --follow where to go on, also with -n 0.
    latest = reports.latest_events(gov, max(count, 1))
    _write(latest[len(latest) - count :] if count else [])
    if follow:
        try:
            _follow(gov, {event.id for event in latest})
        except KeyboardInterrupt:
            click.echo(err=True)


@events.command()
@click.option("--session", "session_id", metavar="ID", required=True, help="Whose trail.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only what follows this number.")
@output.json_option
def replay(session_id: str, after: int) -> None:
    """A session's trail in its sealed order; what is not sealed yet is sealed first."""
    gov = governance()
    audit.seal(gov)
    anchor = audit.last_anchor(gov, session_id)
    if anchor is not None:
        said = f"pruned at event {anchor.seq} with hash {anchor.hash} on {output.when(anchor.pruned_us)}"
        click.echo(f"acp: the history of session {session_id} was {said}; what follows is kept", err=True)
    _write(audit.replay(gov, session_id, after))


def _follow(gov: Governance, seen: set[int]) -> None:
    last = max(seen, default=0)
    while True:
        page = reports.events_after(gov, max(0, last - _OVERLAP), _PAGE)
        new = [event for event in page if event.id not in seen and event.id > min(seen, default=0)]
        _write(new)
        last = max([last, *(event.id for event in new)])
        seen = {id_ for id_ in seen | {event.id for event in new} if id_ >= last - _OVERLAP}
        if not new:
            time.sleep(_POLL_S)


def _write(found: Iterable[StoredEvent]) -> None:
    for event in found:
        if output.wants_json():
            output.write_json(event)
        else:
            click.echo(_line(event))


def _line(event: StoredEvent) -> str:
    parts = (
        output.when(event.at_us),
        f"{event.session_id}#{event.seq or '-'}",
        event.kind,
        event.action_id,
        f"try {event.attempt}" if event.attempt else None,
        event.actor,
        event.payload,
    )
    return "  ".join(output.cell(part) for part in parts if part is not None)
