"""A backlog of requests that nobody has answered: what it costs to have it, to look at it, to answer and to end it.

    python -m benchmarks.backlog [--json] [--parked 100000] [--database postgres|sqlite]

The requests are recorded in bulk: parked actions with their tickets and events, of a hundred agents. With them there,
and one worker process with one child, it measures a list of 200, a scrape of the metrics, the brief of one request, an
approval; the time from the approval of an idle fleet's request to its admission, by the trail; and one escalation sweep
that ends all the rest. Before the approvals, and again at the end, the broker's queue has to be empty: a request is a
row and nothing else.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from acp_tasks.control import JOBS
from acp_tasks.fleet.process import Process
from benchmarks.copies import copy, settled
from benchmarks.life import percentile
from benchmarks.servers import DATABASES, ROOT, servers
from benchmarks.sides import environment_of
from governance.clock import Clock
from governance.core.principals import Principal
from governance.core.tickets import TicketState
from governance.operations import decide, metrics, reports
from governance.operations.brief import brief
from governance.operations.context import Governance
from governance.operations.escalate import escalate_overdue
from governance.store import schema

_ANN = Principal("ann", frozenset({"approver"}))
_AGENTS = 100
_LIST = 200
_LOOKS_MAX = 200
_RUNS_MAX = 50
_LATER_US = 3600 * 1_000_000
_READY_S_MAX = 60.0


@dataclass(frozen=True)
class Later:
    """The time it will be when every request has expired."""

    clock: Clock

    def now_us(self) -> int:
        return self.clock.now_us() + _LATER_US

    def span_us(self, real_s: float) -> int:
        return self.clock.span_us(real_s)

    def real_s(self, span_us: int) -> float:
        return self.clock.real_s(span_us)


def main() -> None:
    asked = _arguments()
    with servers((asked.database,), broker=True) as started:
        assert started.broker is not None
        environment = environment_of(started.folder, started.broker.url, 0, started.database(asked.database))
        answer = {"database": asked.database, **measure(started.folder, environment, asked.parked)}
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in answer.items()))


def measure(folder: Path, environment: dict[str, str], parked: int) -> dict[str, object]:
    with _imported(environment) as (asked, gov), _worker(folder, environment):
        _until(lambda: asked.app.control.ping(timeout=0.5), "the worker answers")
        first = asked.refund.apply_async(("first",), agent_id="agent-0").id
        _said(f"recording {parked} requests")
        _record(gov, first, parked)
        runs = [asked.refund.delay(f"case-{number}").id for number in range(min(parked, _RUNS_MAX))]
        _until(lambda: _queued(asked.app) == 0, "the worker has dropped every message of a request")
        tickets = [line.id for line in reports.list_tickets(gov, state=TicketState.PENDING, limit=_LOOKS_MAX)]
        look = partial(reports.list_tickets, gov, state=TicketState.PENDING, limit=_LIST)
        lists = [_ms(look) for _ in range(30)]
        scrapes = [_ms(partial(metrics.measure, gov, tuple(JOBS))) for _ in range(30)]
        shown = [_ms(partial(brief, gov, ticket)) for ticket in tickets]
        # Half of what is looked at, so that the smallest run has something left to expire.
        approved = [_ms(partial(decide.approve, gov, ticket, by=_ANN, reason="fine")) for ticket in tickets[::2]]
        running = [_approve_to_running(asked.app, gov, action_id) for action_id in runs]
        _until(lambda: _queued(asked.app) == 0, "no message waits")
        _said("every request expires")
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began_s = time.perf_counter()
        swept = len(escalate_overdue(replace(gov, clock=Later(gov.clock)), "escalation").denied)
        sweep_s = time.perf_counter() - began_s
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb
        waiting = reports.list_tickets(gov, state=TicketState.PENDING, limit=1)
        assert not waiting, f"{waiting[0]} is still asked"
    return {
        "parked": parked,
        **_figures("list", lists),
        **_figures("scrape", scrapes),
        **_figures("show", shown),
        **_figures("approve", approved),
        **_figures("approve_to_running", running),
        "queue_length": 0,
        "swept": swept,
        "sweep_s": round(sweep_s, 2),
        "sweep_memory_mb": round(grown_kb / 1024, 1),
    }


def _record(gov: Governance, first: str, parked: int) -> None:
    """Copies the first request, `parked` times with itself: the action, its ticket, its event."""
    ticket = str(gov.store.read("SELECT ticket_id FROM actions WHERE id = :id", {"id": first})[0][0])
    copies: tuple[tuple[Any, str, str, dict[str, str]], ...] = (
        (
            schema.work.actions,
            "id",
            first,
            {
                **dict.fromkeys(("id", "command_id", "correlation_id", "ticket_id"), "{column} || '-' || n"),
                "agent_id": f"'agent-' || (n % {_AGENTS})",
                "created_us": "{column} + n",
            },
        ),
        (
            schema.decisions.tickets,
            "id",
            ticket,
            {
                **dict.fromkeys(("id", "action_id"), "{column} || '-' || n"),
                **dict.fromkeys(("requested_us", "due_us", "expires_us"), "{column} + n"),
            },
        ),
        (schema.trail.events, "action_id", first, {"action_id": "{column} || '-' || n"}),
    )
    for table, key, template, changed in copies:
        copy(gov, table, f"{key} = :template", parked - 1, changed, {"template": template})
    settled(gov)


def _approve_to_running(app: Any, gov: Governance, action_id: str) -> float:
    """From the approval to the admission, in ms, as a person's program does it; returns when the action has ended."""
    from acp_tasks.publish import deliver

    approved_us = gov.clock.now_us()
    decide.approve(gov, action_id, by=_ANN, reason="fine")
    deliver(app, gov, action_id)
    state = "SELECT started_us FROM actions WHERE id = :id AND state = 'succeeded'"
    started = _until(lambda: gov.store.read(state, {"id": action_id}), "the approved action has run")
    return (int(started[0][0]) - approved_us) / 1000


def _queued(app: Any) -> int:
    """Messages in the broker, given out or not."""
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        return int(client.llen("celery")) + int(client.hlen("unacked"))


@contextmanager
def _imported(environment: dict[str, str]) -> Iterator[tuple[Any, Governance]]:
    """The app in this process, set up like its worker."""
    os.environ.update(environment)
    from acp_tasks import bootstrap
    from benchmarks import asked

    gov = bootstrap.governance()
    try:
        yield asked, gov
    finally:
        gov.store.close()


@contextmanager
def _worker(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    argv = [sys.executable, "-m", "celery", "-A", "benchmarks.asked:app", "worker", "-l", "WARNING"]
    argv += ["-c", "1", "-n", "w@asked", "--without-gossip", "--without-mingle"]
    process = Process("worker", argv, folder / "worker.log", environment, cwd=ROOT)
    try:
        yield
    finally:
        process.stop()


def _figures(name: str, spans_ms: list[float]) -> dict[str, float]:
    return {f"{name}_p{percent}_ms": round(percentile(spans_ms, percent), 2) for percent in (50, 95)}


def _ms(operation: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    operation()
    return (time.perf_counter() - began_s) * 1000


def _until(look: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + _READY_S_MAX
    while not (found := look()):
        if time.monotonic() > end_s:
            raise RuntimeError(f"not within {_READY_S_MAX:g} s: {what}")
        time.sleep(0.005)
    return found


def _said(what: str) -> None:
    print(what, file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a backlog of unanswered requests costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=DATABASES, default="postgres")
    parser.add_argument("--parked", type=int, default=100_000, help="requests that nobody has answered; at least 2")
    return parser.parse_args()


if __name__ == "__main__":
    main()
