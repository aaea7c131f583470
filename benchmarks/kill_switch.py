"""The kill switch on a busy fleet: how long from the engagement until the last body has stopped.

    python -m benchmarks.kill_switch [--json] [--rounds 10] [--workers 2] [--concurrency 4] [--database postgres]

Every round fills every pool child with an action of one stream, half of them bodies that ask `should_stop()` every 50
ms and half of them one long sleep, puts as many again behind them, engages a switch for the stream, and reads from the
trail when each attempt ended. The last round has bodies that swallow every exception, with a grace of one second.
`new_starts` counts attempts that began after the engagement; it has to be 0.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from acp_tasks.fleet.process import Process
from benchmarks.life import percentile
from benchmarks.servers import DATABASES, ROOT, servers
from benchmarks.sides import environment_of
from governance.core.principals import Principal
from governance.core.switches import Mode, Scope
from governance.operations.context import Governance

_BENCH = Principal("bench", frozenset({"operator"}))
_GRACE_S = 1.0
_READY_S_MAX = 60.0


def main() -> None:
    asked = _arguments()
    with servers((asked.database,), broker=True) as started:
        assert started.broker is not None
        environment = environment_of(started.folder, started.broker.url, 0, started.database(asked.database))
        answer = measure(started.folder, environment, asked)
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in answer.items()))


def measure(folder: Path, environment: dict[str, str], asked: argparse.Namespace) -> dict[str, object]:
    with _imported(environment) as (busy, gov), ExitStack() as stack:
        for number in range(asked.workers):
            stack.callback(_worker(number, asked.concurrency, folder, environment).stop)
        _until(lambda: len(busy.app.control.ping(timeout=0.5)) == asked.workers, "every worker answers")
        slots = asked.workers * asked.concurrency
        mixed = [busy.cooperative if number % 2 else busy.interruptible for number in range(slots)]
        spans: list[float] = []
        new_starts = 0
        for number in range(asked.rounds):
            found, starts = _round(gov, busy, f"round-{number}", mixed, grace_s=10.0)
            spans += found
            new_starts += starts
            print(f"round {number + 1} of {asked.rounds}: the last one after {max(found):.0f} ms", file=sys.stderr)
        killed, starts = _round(gov, busy, "killed", [busy.uncooperative] * slots, grace_s=_GRACE_S)
    return {
        "database": asked.database,
        "workers": asked.workers,
        "concurrency": asked.concurrency,
        "stopped": len(spans),
        "stop_p50_ms": round(percentile(spans, 50), 1),
        "stop_p99_ms": round(percentile(spans, 99), 1),
        "stop_max_ms": round(max(spans), 1),
        "killed": len(killed),
        "killed_after_grace_max_ms": round(max(killed) - _GRACE_S * 1000, 1),
        "new_starts": new_starts + starts,
    }


def _round(gov: Governance, busy: Any, stream: str, tasks: list[Any], *, grace_s: float) -> tuple[list[float], int]:
    """How long after the engagement each running body ended, in ms, and how many attempts began after it."""
    from acp_tasks.stop import stop

    sent = [task.apply_async(stream=stream) for task in tasks + tasks]
    running = "SELECT count(*) FROM actions WHERE stream = :stream AND state = 'running'"
    _until(lambda: gov.store.read(running, {"stream": stream})[0][0] == len(tasks), "every child is busy")
    report = stop(busy.app, gov, Scope.STREAM, stream, mode=Mode.KILL, reason="a benchmark", by=_BENCH, grace_s=grace_s)
    spans = [one.after_ms for one in report.ended if one.after_ms is not None]
    assert len(spans) == len(tasks), f"{report.still_running} of {len(tasks)} still run"
    ended = "SELECT count(*) FROM actions WHERE stream = :stream AND state = 'cancelled'"
    _until(lambda: gov.store.read(ended, {"stream": stream})[0][0] == len(sent), "everything is cancelled")
    begun = gov.store.read("SELECT sum(attempt) FROM actions WHERE stream = :stream", {"stream": stream})[0][0]
    for result in sent:
        result.forget()
    return spans, int(begun) - len(tasks)


@contextmanager
def _imported(environment: dict[str, str]) -> Iterator[tuple[Any, Governance]]:
    """The app of the busy tasks in this process, set up like its workers."""
    import os

    os.environ.update(environment)
    from acp_tasks import bootstrap
    from benchmarks import busy

    gov = bootstrap.governance()
    try:
        yield busy, gov
    finally:
        gov.store.close()


def _worker(number: int, concurrency: int, folder: Path, environment: dict[str, str]) -> Process:
    argv = [sys.executable, "-m", "celery", "-A", "benchmarks.busy:app", "worker", "-l", "WARNING"]
    argv += ["-c", str(concurrency), "-n", f"w{number}@busy", "--without-gossip", "--without-mingle"]
    return Process(f"worker {number}", argv, folder / f"worker-{number}.log", environment, cwd=ROOT)


def _until(look: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + _READY_S_MAX
    while not look():
        if time.monotonic() > end_s:
            raise RuntimeError(f"not within {_READY_S_MAX:g} s: {what}")
        time.sleep(0.02)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a kill switch takes to stop a busy fleet.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=DATABASES, default="postgres")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=4, help="pool children of each worker")
    return parser.parse_args()


if __name__ == "__main__":
    main()
