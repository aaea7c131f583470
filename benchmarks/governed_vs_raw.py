"""What governance costs a fleet: the same no-op task on plain Celery and behind governance, in turn, in one run.

    python -m benchmarks.governed_vs_raw [--json] [--database postgres|sqlite|both] [--actions N] [--rounds R]

Every side has its own workers (prefork, one child each, late acknowledgement, prefetch 1, events, results), all of
them running all the time; the rounds alternate, so that what else the machine does falls on all sides alike. One round
is N actions from the first publication to the last result, published one by one while the workers work.
"""

import argparse
import statistics
import sys
from contextlib import ExitStack

from benchmarks.life import Life, percentile
from benchmarks.servers import DATABASES, Servers, chosen, servers, write_runs
from benchmarks.sides import Side

_WARM_ACTIONS = 20
_IN_PROCESS_MAX = 500


def main() -> None:
    asked = _arguments()
    kinds = chosen(asked.database)
    with servers(kinds, broker=True) as started:
        runs = measure(started, kinds, actions=asked.actions, rounds=asked.rounds, workers=asked.workers)
    write_runs(runs, kinds, as_json=asked.json)


def measure(
    started: Servers, kinds: tuple[str, ...], *, actions: int, rounds: int, workers: int
) -> dict[str, dict[str, object]]:
    """One object of figures for each database."""
    assert started.broker is not None
    urls = {kind: started.database(kind) for kind in kinds}
    reached: dict[str, list[float]] = {name: [] for name in ("raw", *kinds)}
    with ExitStack() as stack:
        sides = [
            stack.enter_context(
                Side(
                    name,
                    "raw" if name == "raw" else "governed",
                    started.folder,
                    broker_url=started.broker.url,
                    number=number,
                    database_url=urls.get(name, ""),
                    workers=workers,
                )
            )
            for number, name in enumerate(reached)
        ]
        for side in sides:
            side.warm(_WARM_ACTIONS)
        for number in range(rounds):
            for side in sides:
                per_s = side.round(actions)
                reached[side.name].append(per_s)
                print(f"round {number + 1} of {rounds}: {side.name} {per_s:.0f}/s", file=sys.stderr)
    return {kind: _figures(kind, urls[kind], reached["raw"], reached[kind], actions) for kind in kinds}


def _figures(kind: str, url: str, raw: list[float], governed: list[float], actions: int) -> dict[str, object]:
    raw_per_s, governed_per_s = statistics.median(raw), statistics.median(governed)
    return {
        "database": kind,
        "ratio": round(governed_per_s / raw_per_s, 3),
        "raw_per_s": round(raw_per_s, 1),
        "governed_per_s": round(governed_per_s, 1),
        "round_ratios": [round(g / r, 3) for g, r in zip(governed, raw, strict=True)],
        "actions": actions,
        "rounds": len(raw),
        **_operations(url, min(actions, _IN_PROCESS_MAX)),
    }


def _operations(url: str, cycles: int) -> dict[str, float]:
    """The three operations in this process, alone on the database that the fleet has just used."""
    life = Life(url)
    try:
        life.cycle()
        before = life.gov.store.round_trips
        for number in range(cycles):
            life.cycle(number)
        figures: dict[str, float] = {"round_trips_per_action": (life.gov.store.round_trips - before) / cycles}
    finally:
        life.close()
    for operation in ("submit", "admit", "finish"):
        timings = getattr(life.timings, operation)[1:]
        figures[f"{operation}_p50_ms"] = round(percentile(timings, 50), 2)
        figures[f"{operation}_p95_ms"] = round(percentile(timings, 95), 2)
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plain Celery against governed Celery, in turn.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--actions", type=int, default=500, help="actions of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of each side")
    return parser.parse_args()


if __name__ == "__main__":
    main()
