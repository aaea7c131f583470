"""`acp metrics`: the fleet in numbers, for people, for scripts, and for Prometheus."""

import signal
import threading
from types import ModuleType
from typing import Any

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import governance
from acp_tasks.control import JOBS
from governance.errors import InvalidOption
from governance.operations.metrics import Measures, measure


@click.group(invoke_without_command=True)
@click.option("--openmetrics", is_flag=True, help="As a scrape would answer.")
@output.json_option
@click.pass_context
def metrics(ctx: click.Context, openmetrics: bool) -> None:
    """What runs, waits and is left, in numbers."""
    if ctx.invoked_subcommand is not None:
        return
    gov = governance()
    if openmetrics:
        click.echo(_exporter().exposition(gov), nl=False)
        return
    seen = measure(gov, tuple(JOBS))
    if output.wants_json():
        output.write_json(seen)
    else:
        output.write_fields(_shown(seen))


@metrics.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="0: any free one.")
def serve(address: str, port: int) -> None:
    """Answer Prometheus at /metrics until SIGTERM or Ctrl-C."""
    from prometheus_client import start_http_server

    registry = _exporter().registry(governance())
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as problem:
        expected = f"an address of this machine and a free port ({problem.strerror or problem})"
        raise InvalidOption("--address and --port", f"{address}:{port}", expected) from problem
    click.echo(f"metrics at http://{address}:{server.server_port}/metrics")
    ended.wait()
    server.shutdown()
    thread.join()


def _exporter() -> ModuleType:
    """What speaks Prometheus; its library comes with an extra."""
    try:
        from acp_tasks import metrics
    except ModuleNotFoundError as problem:
        if problem.name != "prometheus_client":
            raise
        raise click.ClickException("prometheus_client is not installed: pip install 'acp-tasks[metrics]'") from problem
    return metrics


def _shown(seen: Measures) -> dict[str, Any]:
    streams = ", ".join(f"{stream} {count}" for stream, count in sorted(seen.runnable.items()) if count)
    ages = ", ".join(f"{job} {'never' if age is None else f'{age:g} s'}" for job, age in seen.job_ages_s.items())
    fullest = max(seen.budgets, key=lambda budget: budget.used_ratio, default=None)
    return {
        "runnable now": f"{sum(seen.runnable.values())}{f' ({streams})' if streams else ''}",
        "oldest runnable": f"{seen.oldest_runnable_s:g} s",
        **seen.actions,
        "pending approvals": seen.pending_approvals,
        "oldest approval": f"{seen.oldest_approval_s:g} s",
        "workers": f"{len(seen.workers)} with {sum(worker.slots or 0 for worker in seen.workers)} slots",
        "beats": len(seen.beats),
        "last ticks ago": ages,
        "fullest budget": fullest and f"{fullest.scope} {fullest.of} {fullest.unit}: {fullest.used_ratio:.0%}",
        "alerts raised": sum(seen.alerts.values()),
        "unsealed events": seen.unsealed_events,
        "unpublished actions": seen.unpublished_actions,
    }
