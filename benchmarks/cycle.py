"""Governance without Celery: submit, admit, finish, as fast as one process and two can take actions through them.

    python -m benchmarks.cycle [--json] [--database postgres|sqlite|both] [--seconds S]

This is the figure that compares with other governance libraries: one whole governed action, its budgets held and
posted, its events written, every commit waited for.
"""

import argparse
import multiprocessing
import multiprocessing.synchronize
import time

from benchmarks.life import Life
from benchmarks.servers import DATABASES, chosen, servers, write_runs

_WARM_CYCLES = 20
_PROCESSES = (1, 2)
_START_S_MAX = 60.0


def main() -> None:
    asked = _arguments()
    kinds = chosen(asked.database)
    runs: dict[str, dict[str, object]] = {}
    with servers(kinds) as started:
        for kind in kinds:
            url = started.database(kind)
            runs[kind] = {"database": kind, "round_trips_per_cycle": _round_trips(url)}
            for processes in _PROCESSES:
                runs[kind][f"cycles_per_s_{processes}"] = round(_cycles_per_s(url, processes, asked.seconds), 1)
    write_runs(runs, kinds, as_json=asked.json)


def _round_trips(url: str) -> float:
    """Statements and transaction brackets of one cycle, once sessions and statements are known."""
    life = Life(url)
    try:
        life.cycle()
        before = life.gov.store.round_trips
        for _ in range(_WARM_CYCLES):
            life.cycle()
        return (life.gov.store.round_trips - before) / _WARM_CYCLES
    finally:
        life.close()


def _cycles_per_s(url: str, processes: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    answers = context.Queue()
    children = [
        context.Process(target=_child, args=(url, seconds, barrier, answers), daemon=True) for _ in range(processes)
    ]
    try:
        for child in children:
            child.start()
        return float(sum(answers.get(timeout=_START_S_MAX + seconds) for _ in children))
    finally:
        for child in children:
            child.join(timeout=10)
            if child.is_alive():
                child.kill()
                child.join()


def _child(
    url: str,
    seconds: float,
    barrier: "multiprocessing.synchronize.Barrier",
    answers: "multiprocessing.Queue[float]",
) -> None:
    life = Life(url)
    for _ in range(_WARM_CYCLES):
        life.cycle()
    barrier.wait(timeout=_START_S_MAX)
    began_s = time.perf_counter()
    cycles = 0
    while time.perf_counter() - began_s < seconds:
        life.cycle(cycles)
        cycles += 1
    answers.put(cycles / (time.perf_counter() - began_s))
    life.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cycles of submit, admit and finish, from one process and from two.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
