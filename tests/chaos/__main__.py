"""Works and breaks a fleet for some minutes, heals it, and says what was done and what is wrong.

    python -m tests.chaos [--minutes 10] [--seed N] [--json]        or CHAOS_MINUTES, CHAOS_SEED

The seed gives the same actions and the same troubles in the same order; how they meet is the machine's doing. Exits 1
on any violation.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from tests.chaos.load import Load, awaited, missing
from tests.chaos.troubles import TROUBLES, Fleet, Trouble, name_of
from tests.faults.conftest import FAST
from tests.support.fleet import Shop
from tests.support.governed import policy_file
from tests.support.intact import unsettled, violations

_POLICY: Final = """
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {cost_usd: "1000.00", actions: 10000000, tokens: 100000000}}
rules:
  - {id: ask, match: {risk: high}, effect: approval, reason: "a person decides", approval: {timeout: 15m}}
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
"""
# What a killed worker had in hand comes back by itself after this long; tasks here take less.
_VISIBILITY_S: Final = 15
_HEALED_S: Final = 120.0


def main() -> None:
    asked = _arguments()
    folder = tempfile.mkdtemp(prefix="acp-chaos-")
    answer = run(Path(folder), asked.minutes * 60, asked.seed, say=None if asked.json else _say)
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:12} {value}" for name, value in answer.items()))
    if answer["violations"]:
        print(f"what was left is in {folder}", file=sys.stderr)
        sys.exit(1)


def run(folder: Path, seconds: float, seed: int, say: Callable[[str], None] | None) -> dict[str, object]:
    """Works and breaks a fleet in `folder`."""
    injected: Counter[str] = Counter()
    with _fleet(folder, seed) as fleet:
        load = Load(fleet.shop, seed)
        fleet.start()
        load.start()
        end_s = time.monotonic() + seconds
        for trouble in _order(seed):
            if time.monotonic() > end_s:
                break
            if say:
                say(f"{name_of(trouble)} ({len(load.accepted)} actions so far)")
            trouble(fleet)
            injected[name_of(trouble)] += 1
            fleet.pause()
        fleet.heal()
        load.stop()
        if say:
            say("healed; waiting for what is open")
        gov = fleet.shop.gov

        def at_rest() -> bool:
            load.decide_all()
            return not (unsettled(gov) or missing(fleet.shop, load.accepted))

        awaited(at_rest, _HEALED_S)
        found = missing(fleet.shop, load.accepted) + violations(gov, folder, fleet.shop.effects())
        states = Counter(str(row[0]) for row in gov.store.read("SELECT state FROM actions", {}))
    return {
        "seed": seed,
        "seconds": round(seconds),
        "actions": sum(states.values()),
        "states": dict(states),
        "decided": dict(load.decided),
        "faults": sum(injected.values()),
        "injected": dict(injected),
        "violations": found,
    }


def _order(seed: int) -> Iterator[Trouble]:
    """Every trouble once in a seeded order, then again in another one."""
    order = random.Random(seed)
    while True:
        yield from order.sample(TROUBLES, len(TROUBLES))


@contextmanager
def _fleet(folder: Path, seed: int) -> Iterator[Fleet]:
    with ExitStack() as stack:
        broker = BrokerServer(folder / "broker")
        database = PostgresServer(folder / "postgres", fsync=False)
        for server in (broker, database):
            stack.callback(server.stop)
            server.start()
        settings = {**FAST, "ACP_ATTEMPTS_MAX": "100", "SHOP_VISIBILITY_S": str(_VISIBILITY_S)}
        os.environ["ACP_BROKER_URL"] = broker.url
        os.environ["SHOP_VISIBILITY_S"] = str(_VISIBILITY_S)
        shop = Shop(folder, database.create_database("chaos"), broker.url, **settings)
        stack.callback(shop.close)
        policy_file(folder, _POLICY)
        yield Fleet(shop, broker, database, seed)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A long seeded mix of work and faults on a real fleet.")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("CHAOS_MINUTES", "10")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED", "1")))
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    main()
