"""What a second worker brings: one worker of four children against two of them, in turn, in one run.

    python -m benchmarks.scale_out [--json] [--database postgres|sqlite] [--actions N] [--rounds R] [--children C]
                                   [--bodies noop waiting]

Once with an action that does nothing, which measures the cores, and once with one that waits for 200 ms, like an agent
for its model, which measures whether the slots of a second worker are used. A fleet that is idle meanwhile beats only.
"""

import argparse
import json
import os
import statistics
import sys
from contextlib import ExitStack

from benchmarks.servers import DATABASES, Servers, servers
from benchmarks.sides import Side

_BODIES_S = {"noop": 0.0, "waiting": 0.2}
_WORKERS = {"one": 1, "two": 2}


def main() -> None:
    asked = _arguments()
    with servers((asked.database,), broker=True) as started:
        figures = {"database": asked.database, "children": asked.children, "cores": os.cpu_count()}
        for number, body in enumerate(asked.bodies):
            figures |= _measure(started, asked, body, _BODIES_S[body], 2 * number)
    print(json.dumps(figures) if asked.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))


def _measure(
    started: Servers, asked: argparse.Namespace, body: str, body_s: float, number: int
) -> dict[str, float | list[float]]:
    assert started.broker is not None
    reached: dict[str, list[float]] = {name: [] for name in _WORKERS}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                Side(
                    f"{body}-{name}",
                    "governed",
                    started.folder,
                    broker_url=started.broker.url,
                    number=number + offset,
                    database_url=started.database(asked.database),
                    workers=workers,
                    children=asked.children,
                    body_s=body_s,
                )
            )
            for offset, (name, workers) in enumerate(_WORKERS.items())
        }
        for side in sides.values():
            side.warm(4 * asked.children)
        for n in range(asked.rounds):
            for name, side in sides.items():
                reached[name].append(side.round(asked.actions))
                print(f"{body}, round {n + 1} of {asked.rounds}: {name} {reached[name][-1]:.0f}/s", file=sys.stderr)
    one, two = (statistics.median(reached[name]) for name in _WORKERS)
    return {
        f"{body}_ratio": round(two / one, 3),
        f"{body}_one_per_s": round(one, 1),
        f"{body}_two_per_s": round(two, 1),
        f"{body}_round_ratios": [round(b / a, 3) for a, b in zip(reached["one"], reached["two"], strict=True)],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One worker against two.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=DATABASES, default="postgres")
    parser.add_argument("--actions", type=int, default=400, help="actions of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bodies", nargs="+", choices=_BODIES_S, default=list(_BODIES_S))
    parser.add_argument("--children", type=int, default=4, help="pool children of each worker")
    return parser.parse_args()


if __name__ == "__main__":
    main()
