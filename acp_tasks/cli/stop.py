"""`acp stop`, `acp release`, `acp status`: the kill switch, and what the fleet is doing."""

from contextlib import suppress
from typing import Any

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import celery_app, governance, principal
from acp_tasks.cli.group import Exit
from acp_tasks.publish import deliver
from acp_tasks.stop import StopReport
from acp_tasks.stop import stop as stop_fleet
from governance.core.switches import EVERYTHING, Mode, Scope
from governance.errors import NotFound, StoreUnavailable
from governance.operations import clearing, switches
from governance.operations.status import status as fleet_status
from governance.operations.targets import UnknownTarget, unknown_target

_SCOPES = {
    Scope.ACTION: "One action, by its id.",
    Scope.SESSION: "One session.",
    Scope.STREAM: "Every session of a stream, also later ones.",
    Scope.AGENT: "Whatever an agent does.",
    Scope.USER: "Whatever is charged to a user.",
    Scope.TEAM: "Whatever is charged to a team.",
    Scope.ORG: "Whatever is charged to an organisation.",
    Scope.NAME: "Actions whose name matches a glob.",
    Scope.MODEL: "Actions whose model matches a glob.",
}


def _scope_options(command: Any) -> Any:
    command = click.option("--system", is_flag=True, help="Everything.")(command)
    for scope in reversed(_SCOPES):
        also = ("--action-name",) if scope is Scope.NAME else ()
        command = click.option(f"--{scope}", *also, f"scope_{scope}", metavar="ID", help=_SCOPES[scope])(command)
    return command


def _scope(system: bool, given: dict[str, Any]) -> tuple[Scope, str] | None:
    """The one scope that was given, None without any. Raises UsageError for more."""
    found = [(scope, given[f"scope_{scope}"]) for scope in _SCOPES if given[f"scope_{scope}"] is not None]
    found += [(Scope.SYSTEM, EVERYTHING)] if system else []
    if len(found) > 1:
        raise click.UsageError("give one scope: " + ", ".join(f"--{scope}" for scope, _ in found) + " are several")
    return found[0] if found else None


@click.command()
@_scope_options
@click.option("--reason", required=True, help="Kept in the trail, and told to whoever meets the switch.")
@click.option(
    "--mode",
    type=click.Choice([str(mode) for mode in Mode]),
    default=str(Mode.KILL),
    show_default=True,
    help="kill cancels what waits and stops what runs; pause holds it up until the release.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=switches.GRACE_S,
    show_default=True,
    help="Seconds that a running body has before its process is killed.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for what runs to stop.")
@output.json_option
def stop(system: bool, reason: str, mode: str, grace: float, no_wait: bool, **given: Any) -> None:
    """Engage a kill switch for the smallest scope that is enough: from then on nothing in it starts.

    Waits until everything in scope has stopped and reports how. Exit code 1 when something still runs.
    """
    scope = _scope(system, given)
    if scope is None:
        raise click.UsageError("give what to stop: --action, --session, --stream, --agent, ... or --system")
    gov = governance()
    report = stop_fleet(
        celery_app(),
        gov,
        *scope,
        mode=Mode(mode),
        reason=reason,
        by=principal(),
        grace_s=grace,
        wait=not no_wait,
        said=lambda line: click.echo(line, err=True),
    )
    # Looked at afterwards, and if it can be: nothing comes between an emergency and the engagement.
    unknown = None
    with suppress(StoreUnavailable):
        names = [name for name in celery_app().tasks if not name.startswith("celery.")]
        unknown = unknown_target(gov, *scope, names=names)
    if unknown is not None:
        click.echo(_warning(unknown), err=True)
    if output.wants_json():
        output.write_json(
            {
                **output.plain(report),
                "unknown_target": output.plain(unknown) if unknown is not None else None,
                "running": report.running,
                "still_running": report.still_running,
                "last_stop_ms": report.last_stop_ms,
            }
        )
    else:
        _write(report)
    click.get_current_context().exit(Exit.FAILED if report.still_running and not no_wait else Exit.OK)


@click.command()
@click.argument("switch_id", metavar="[ID]", required=False)
@_scope_options
@click.option("--reason", required=True, help="Why it is safe again; kept in the trail.")
@output.json_option
def release(switch_id: str | None, system: bool, reason: str, **given: Any) -> None:
    """Release a kill switch, by its ID or by its scope. What was cancelled stays cancelled, what was paused goes on."""
    scope = _scope(system, given)
    if (switch_id is None) == (scope is None):
        raise click.UsageError("give the ID of a switch (acp status), or one scope")
    gov = governance()
    by = principal()
    ids = [switch_id] if switch_id is not None else switches.engaged_in(gov, *(scope or (Scope.SYSTEM, EVERYTHING)))
    if not ids:
        raise NotFound("engaged switch", " ".join(scope or ()), "acp status shows the engaged ones")
    resumed: list[str] = []
    for one in ids:
        resumed += clearing.release(gov, one, reason=reason, by=by)
    app = celery_app()
    for action_id in resumed:
        if not deliver(app, gov, action_id):
            # The broker is away: the relay publishes what is left.
            break
    if output.wants_json():
        output.write_json({"released": ids, "resumed": len(resumed)})
        return
    click.echo(f"released {', '.join(ids)}; {len(resumed)} paused actions go on")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the switches that were released.")
@output.json_option
def status(everything: bool) -> None:
    """What is engaged, what runs and waits, and who works."""
    found = fleet_status(governance(), everything=everything)
    if output.wants_json():
        output.write_json(found)
        return
    output.write_table(
        ("SWITCH", "MODE", "SCOPE", "WHY", "BY", "SINCE", "RELEASED"),
        (
            (
                line.id,
                line.mode,
                line.rule.removeprefix("switch:"),
                line.reason,
                line.engaged_by,
                output.when(line.engaged_us),
                output.when(line.released_us) and f"{output.when(line.released_us)} {line.release_reason}",
            )
            for line in found.switches
        ),
        empty="no switch is engaged",
    )
    click.echo()
    output.write_table(
        ("AGENT", "USER", "STREAM", "SESSION", "RUNNING", "WAITING"),
        ((one.agent_id, one.user, one.stream, one.session_id, one.running, one.waiting) for one in found.busiest),
        empty="nothing runs, nothing waits",
    )
    click.echo()
    output.write_fields(
        {
            "actions": ", ".join(f"{count} {state}" for state, count in sorted(found.actions.items())) or "none",
            "overdue requests": found.overdue,
            "workers": ", ".join(found.workers) or "none",
        }
    )


def _warning(unknown: UnknownTarget) -> str:
    like = f" (did you mean {' or '.join(unknown.near)}?)" if unknown.near else ""
    return (
        f"acp: warning: nothing is known of {unknown.scope} {unknown.scope_id!r}{like}. The switch stands for whatever "
        "is still to come; `acp release` ends it"
    )


def _write(report: StopReport) -> None:
    again = ", engaged before" if report.repeated else ""
    click.echo(f"switch {report.switch_id} ({report.rule}, {report.mode}{again})")
    if report.mode is Mode.PAUSE:
        click.echo("what is in scope waits until `acp release`; what runs goes on")
        return
    for worker in report.acknowledged:
        click.echo(f"  acknowledged   {worker}")
    for worker in report.silent:
        click.echo(f"  did not answer {worker} (it looks by itself with its next heartbeat)")
    click.echo(f"{report.cancelled} waiting actions cancelled, {report.running} were running")
    output.write_table(
        ("ACTION", "NAME", "WORKER", "ENDED AS", "AFTER"),
        (
            (
                one.action_id,
                one.name,
                one.worker_id,
                one.state,
                "still running" if one.after_ms is None else f"{one.after_ms:.0f} ms",
            )
            for one in report.ended
        ),
        empty="nothing was running",
    )
    if report.last_stop_ms is not None:
        click.echo(f"the last one stopped {report.last_stop_ms:.0f} ms after the engagement")
