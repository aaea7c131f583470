"""What budgets by identity cost: an action that six more budgets match, against one with its session's budgets only.

    python -m benchmarks.identity_budgets [--json] [--database postgres|sqlite|both] [--seconds S] [--rounds N]

One process takes actions through submit, admit and finish, in rounds that alternate between the two on one database, so
that a slow minute of the machine is both's. The budgets are user, team and org, each for the day and the month, each
with a limit of money and one of tokens: twelve accounts more are held and settled by every action. `ratio` is the
median of the rounds' ratios.
"""

import argparse
import json
import time
from dataclasses import replace
from statistics import median

from benchmarks.life import Life, make_finish, make_submission
from benchmarks.servers import DATABASES, POLICY, chosen, servers
from governance.core.budgets import Payer
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admitted
from governance.operations.finish import Settled, finish
from governance.operations.submit import submit
from governance.policy_file import read_policy

_WARM = 30
_PARTS = ("user", "team", "org")
_BUDGETS = "budgets:\n" + "".join(
    f'  - {{id: {part}-{period}, identity: {{{part}: "*"}}, period: {period}, max_cost_usd: "1000000.00",'
    f" max_tokens: 1000000000}}\n"
    for part in _PARTS
    for period in ("daily", "monthly")
)
_NOBODY = Payer(None, None, None, None, "default")
_SOMEBODY = Payer("u1", "t1", "o1", None, "default")


def main() -> None:
    asked = _arguments()
    kinds = chosen(asked.database)
    with servers(kinds) as started:
        runs = {kind: measure(started.database(kind), kind, asked.seconds, asked.rounds) for kind in kinds}
    answer: dict[str, object] = dict(runs[kinds[0]])
    if len(kinds) > 1:
        answer["runs"] = runs
    if asked.json:
        print(json.dumps(answer))
    else:
        for run in runs.values():
            print("\n".join(f"{name:24} {value}" for name, value in run.items()), end="\n\n")


def measure(url: str, kind: str, seconds: float, rounds: int) -> dict[str, object]:
    """Rounds of `seconds` with and without an identity, in turn."""
    life = Life(url, policy=read_policy(POLICY) + _BUDGETS)
    try:
        for payer in (_NOBODY, _SOMEBODY):
            for number in range(_WARM):
                cycle(life, payer, number)
        pairs = [(_rate(life, _NOBODY, seconds), _rate(life, _SOMEBODY, seconds)) for _ in range(rounds)]
        accounts = life.gov.store.read("SELECT count(*) FROM accounts WHERE scope = 'budget'", {})[0][0]
    finally:
        life.close()
    return {
        "database": kind,
        "budget_accounts": int(accounts),
        "session_only_per_s": round(median(plain for plain, _ in pairs), 1),
        "with_budgets_per_s": round(median(more for _, more in pairs), 1),
        "ratio": round(median(more / plain for plain, more in pairs), 3),
    }


def cycle(life: Life, payer: Payer, number: int) -> None:
    """Submit, admit, finish."""
    made = replace(make_submission(number), user=payer.user, team=payer.team, org=payer.org)
    submit(life.gov, made)
    arrival = Arrival(made.action_id, made.stream, made.digest, {"number": number}, redelivered=False, payer=payer)
    admission = admit(life.gov, arrival, life.lease)
    assert isinstance(admission, Admitted), admission
    finished = finish(life.gov, make_finish(life.gov, admission, str(number)))
    assert isinstance(finished, Settled), finished


def _rate(life: Life, payer: Payer, seconds: float) -> float:
    began_s = time.perf_counter()
    cycles = 0
    while time.perf_counter() - began_s < seconds:
        cycle(life, payer, cycles)
        cycles += 1
    return cycles / (time.perf_counter() - began_s)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Actions per second with six more matching budgets, and without.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=(*DATABASES, "both"), default="both")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
