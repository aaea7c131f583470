"""What budgets by identity cost: an action that six more budgets match, against one with its session's budgets only.

    python -m benchmarks.identity_budgets [--json] [--database postgres|sqlite|both] [--seconds S] [--rounds N]

One process takes actions through submit, admit and finish, in rounds that alternate between the two on one database, so
that a slow minute of the machine is both's. The budgets are user, team and org, each for the day and the month. With a
limit of money each, six accounts more are held and settled by every action (`ratio`); with one of tokens as well it is
twelve (`ratio_both_units`). Ratios are medians of the rounds' ratios.
"""

import argparse
import time
from dataclasses import replace
from statistics import median

from benchmarks.life import Life, make_finish, make_submission
from benchmarks.servers import DATABASES, POLICY, chosen, servers, write_runs
from governance.core.budgets import Payer
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admitted
from governance.operations.finish import Settled, finish
from governance.operations.submit import submit
from governance.policy_file import read_policy

_WARM = 30
_PARTS = ("user", "team", "org")
_MONEY = 'max_cost_usd: "1000000.00"'
_BOTH = f"{_MONEY}, max_tokens: 1000000000"
_NOBODY = Payer(None, None, None, None, "default")
_SOMEBODY = Payer("u1", "t1", "o1", None, "default")


def main() -> None:
    asked = _arguments()
    kinds = chosen(asked.database)
    with servers(kinds) as started:
        runs = {kind: measure(started.database(kind), kind, asked.seconds, asked.rounds) for kind in kinds}
    write_runs(runs, kinds, as_json=asked.json)


def budgets(limits: str) -> str:
    """Six budgets, as a policy has them."""
    return "budgets:\n" + "".join(
        f'  - {{id: {part}-{period}, identity: {{{part}: "*"}}, period: {period}, {limits}}}\n'
        for part in _PARTS
        for period in ("daily", "monthly")
    )


def measure(url: str, kind: str, seconds: float, rounds: int) -> dict[str, object]:
    """Rounds of `seconds` with and without an identity, in turn."""
    money, both = (Life(url, policy=read_policy(POLICY) + budgets(limits)) for limits in (_MONEY, _BOTH))
    try:
        # The second one's streams have sessions of their own, under its policy.
        sides = ((money, _NOBODY, "default"), (money, _SOMEBODY, "default"), (both, _SOMEBODY, "both"))
        for life, payer, stream in sides:
            for number in range(_WARM):
                cycle(life, payer, stream, number)
        found = [[_rate(life, payer, stream, seconds) for life, payer, stream in sides] for _ in range(rounds)]
        accounts = money.gov.store.read("SELECT count(*) FROM accounts WHERE scope = 'budget'", {})[0][0]
    finally:
        money.close()
        both.close()
    return {
        "database": kind,
        "budget_accounts": int(accounts),
        "session_only_per_s": round(median(plain for plain, _, _ in found), 1),
        "with_budgets_per_s": round(median(six for _, six, _ in found), 1),
        "ratio": round(median(six / plain for plain, six, _ in found), 3),
        "ratio_both_units": round(median(twelve / plain for plain, _, twelve in found), 3),
    }


def cycle(life: Life, payer: Payer, stream: str, number: int) -> None:
    """Submit, admit, finish."""
    payer = replace(payer, stream=stream)
    made = replace(make_submission(number), user=payer.user, team=payer.team, org=payer.org, stream=stream)
    submit(life.gov, made)
    # As a worker reads it from the message.
    said = replace(made, message="")
    arrival = Arrival(
        made.action_id, made.stream, made.digest, {"number": number}, redelivered=False, payer=payer, said=said
    )
    admission = admit(life.gov, arrival, life.lease)
    assert isinstance(admission, Admitted), admission
    finished = finish(life.gov, make_finish(life.gov, admission, str(number)))
    assert isinstance(finished, Settled), finished


def _rate(life: Life, payer: Payer, stream: str, seconds: float) -> float:
    began_s = time.perf_counter()
    cycles = 0
    while time.perf_counter() - began_s < seconds:
        cycle(life, payer, stream, cycles)
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
