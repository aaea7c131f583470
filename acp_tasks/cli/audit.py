"""`acp audit`: the proof that the trail and the ledger hold, and the end of what is old enough to go."""

from contextlib import ExitStack
from pathlib import Path

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance, principal
from acp_tasks.cli.group import Exit
from acp_tasks.cli.times import duration_s
from governance.operations import audit as operation
from governance.operations import retention
from governance.operations.archive import Archive, verify_file

_SHOWN_MAX = 20


@click.group()
def audit() -> None:
    """Prove that the trail and the ledger hold, and prune what is old."""


@audit.command()
@click.option("--file", "path", metavar="FILE", type=click.Path(path_type=Path), help="An archive of pruned sessions.")
@output.json_option
def verify(path: Path | None) -> None:
    """Check every session's chain, every account's sums and every action's history; exit code 1 names what is wrong.

    With --file the chains of what `acp audit prune --export` wrote.
    """
    gov = governance()
    found = operation.verify(gov) if path is None else verify_file(gov, path)
    if output.wants_json():
        output.write_json({"ok": found.ok, **output.plain(found)})
    else:
        for problem in found.problems:
            click.echo(output.cell(problem))
        if isinstance(found, operation.Verification):
            _write_anchors(found)
            read = f"{found.events} events, {found.actions} actions, {found.accounts} accounts"
        else:
            read = f"{found.events} events of {len(found.sessions)} sessions"
        click.echo(f"{'verified' if found.ok else 'NOT verified'}: {read}, {len(found.problems)} problems")
    click.get_current_context().exit(Exit.OK if found.ok else Exit.FAILED)


@audit.command()
@click.option("--older-than", metavar="AGE", required=True, help="What ended longer ago than this, such as 90d.")
@click.option("--dry-run", is_flag=True, help="Only say what would be pruned and what would stay.")
@click.option("--reason", help="Kept in the trail; needed unless it is a dry run.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write the events there before.")
@output.json_option
def prune(older_than: str, dry_run: bool, reason: str | None, export: Path | None) -> None:
    """Delete whole sessions that are over: events, entries, tickets, actions, accounts. Needs the role operator.

    An anchor stays in their place, so that all that is kept can be verified. A session stays as long as anything in it
    goes on, and one whose books do not agree stays as evidence: exit code 1.
    """
    older_than_s = duration_s("older-than", older_than)
    if dry_run:
        found = retention.plan(governance(), older_than_s=older_than_s)
    else:
        if reason is None:
            raise click.UsageError("give a --reason, or --dry-run")
        gov = governance()
        by = principal()
        with ExitStack() as stack:
            archive = stack.enter_context(Archive(gov, export)) if export is not None else None
            found = retention.prune(gov, older_than_s=older_than_s, by=by, reason=reason, archive=archive)
    damaged = any(kept.damaged for kept in found.kept)
    if output.wants_json():
        output.write_json({"dry_run": dry_run, **output.plain(found)})
    else:
        _write(found, dry_run)
    click.get_current_context().exit(Exit.FAILED if damaged else Exit.OK)


def _write(found: retention.Retention, dry_run: bool) -> None:
    output.write_table(
        ("SESSION", "EVENTS", "", "WHY"),
        (
            *((one.session_id, one.events, "would go" if dry_run else "pruned", None) for one in found.pruned),
            *((one.session_id, None, "DAMAGED" if one.damaged else "kept", one.why) for one in found.kept),
        ),
        empty=f"no session ended before {output.when(found.cutoff_us)}",
    )
    events = sum(one.events for one in found.pruned)
    would = "would be pruned" if dry_run else "pruned"
    click.echo(f"{len(found.pruned)} sessions with {events} events {would}, {len(found.kept)} kept")


def _write_anchors(found: operation.Verification) -> None:
    for anchor in found.anchors[-_SHOWN_MAX:]:
        click.echo(f"session {output.cell(anchor.session_id)}: pruned at event {anchor.seq}, hash {anchor.hash}")
    if len(found.anchors) > _SHOWN_MAX:
        click.echo(f"and {len(found.anchors) - _SHOWN_MAX} more (--json names them)")
