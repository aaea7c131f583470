"""What racers do to the budgets of an identity: use them outside of actions, straddle a midnight, call models, stop."""

import os
import random
import signal
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from governance.core.ledger import Unit, Usage, held_in_all
from governance.middleware.allowance import Allowance, SetAside
from governance.middleware.call import Call
from governance.middleware.spool import Spool
from governance.operations.admit import Arrival
from governance.operations.answers import Admitted, Cancelled, Denied
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.top_up import NoRoom, ToppedUp, top_up
from governance.operations.tracker import TokenBudgetTracker
from governance.policy_file import canonical, parse_policy
from governance.store.actions import holds_in
from tests.support.clocks import TickingClock
from tests.support.governed import Desk

#: What is held, and used, at a time.
EACH = 10


def record(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Uses ann's budgets in and outside of actions, each usage told by two racers, given as times:from:step:policies.

    The time goes by the looks at the clock. Every other pair has the second of the two policy files.
    """
    times, start_us, step_us, *paths = argument.split(":")
    number = int(desk.lease.worker_id.removeprefix("racer-"))
    text = Path(paths[number // 2 % 2]).read_text(encoding="utf-8")
    clock = TickingClock(int(start_us), int(step_us))
    gov = replace(desk.gov, clock=clock, policy=parse_policy(text), policy_source=canonical(text))
    desk, tracker = Desk(gov, desk.lease), TokenBudgetTracker(gov)
    seen: Counter[str] = Counter()
    for turn in range(int(times)):
        seen[type(tracker.check_budget(user="ann", tokens=1)).__name__] += 1
        recorded = tracker.record_usage(user="ann", tokens=1 + turn % 3, command_id=f"{number // 2}-{turn}")
        seen["repeated" if recorded.repeated else "recorded"] += 1
        seen["tokens"] += 0 if recorded.repeated else 1 + turn % 3
        admission = desk.arrive(desk.submit(user="ann", cost_micros=0, tokens=1))
        assert isinstance(admission, Admitted), admission
        desk.finish(admission, usage=Usage(0, 1))
        seen["tokens"] += 1
    return seen


def use(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Records usage of a team outside of actions, and asks for actions of it in between."""
    team, times = argument.split(":")
    tracker = TokenBudgetTracker(desk.gov)
    seen: Counter[str] = Counter()
    for _ in range(int(times)):
        seen["exhausted"] += bool(tracker.record_usage(team=team, tokens=1).exhausted)
        admission = desk.arrive(desk.submit(team=team, tokens=1, cost_micros=0))
        seen[type(admission).__name__] += 1
        if isinstance(admission, Admitted):
            desk.finish(admission, usage=Usage(0, 1))
    return seen


def straddle(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Holds for each org before and after an instant, and closes all of it then, given as from:step:until:orgs.

    As often as it admits an action, it holds more for one that runs already.
    """
    start_us, step_us, until_us, *orgs = argument.split(":")
    clock = TickingClock(int(start_us), int(step_us))
    desk = Desk(replace(desk.gov, clock=clock), desk.lease)
    seen: Counter[str] = Counter()
    runs: dict[str, list[Admitted]] = {org: [] for org in orgs}
    while clock.at_us < int(until_us):
        rng.shuffle(orgs)
        for org in orgs:
            if runs[org] and rng.random() < 0.5:
                run = runs[org].pop(rng.randrange(len(runs[org])))
                more = top_up(desk.gov, run, run.holds, 0, EACH)
                seen[org] += isinstance(more, ToppedUp)
                runs[org].append(replace(run, holds=more.holds) if isinstance(more, ToppedUp) else run)
                continue
            admission = desk.arrive(desk.submit(org=org, cost_micros=0, tokens=EACH))
            if isinstance(admission, Admitted):
                runs[org].append(admission)
                seen[org] += 1
    for run in (one for many in runs.values() for one in many):
        with desk.gov.store.transaction() as connection:
            assert set(holds_in(connection, run.ref.id, run.ref.attempt)) == set(run.holds)
        desk.finish(run, usage=Usage(0, held_in_all(run.holds, Unit.TOKENS)))
    return seen


def call_models(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Calls models in actions of each org, each call as large as it may be, given as times:orgs."""
    times, *orgs = argument.split(":")
    seen: Counter[str] = Counter()
    for _ in range(int(times)):
        rng.shuffle(orgs)
        for org in orgs:
            call = _calling(desk, org)
            allowance = Allowance(call)
            for _ in range(3):
                allowed = allowance.set_aside(EACH, EACH)
                if isinstance(allowed, SetAside):
                    allowance.use((EACH, EACH), (EACH, EACH))
                    seen[f"{org} called"] += 1
                    continue
                assert isinstance(allowed, NoRoom), allowed
                assert allowed.account.left < allowed.wanted, "a false refusal"
                seen[f"{org} refused"] += 1
            run = call.running()
            usage, now_us = call.reported.usage(), desk.gov.clock.now_us()
            ending = Finish(run.ref, run.holds, Succeeded("null"), usage, "test", now_us, call.topped_up)
            assert isinstance(finish(desk.gov, ending), Settled)
    return seen


def die_calling(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Is killed while it calls a model, in an action of an org, with three calls' worth held."""
    allowance = Allowance(_calling(desk, argument))
    for _ in range(3):
        assert isinstance(allowance.set_aside(EACH, EACH), SetAside)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")


def use_up(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Uses up the budgets of teams, given as teams, each action all that it holds, until each team is stopped."""
    teams = argument.split(":")
    seen: Counter[str] = Counter()
    while teams:
        team = rng.choice(teams)
        admission = desk.arrive(desk.submit(team=team, cost_micros=0, tokens=EACH))
        seen[f"{team} {type(admission).__name__}"] += 1
        match admission:
            case Admitted():
                desk.finish(admission, usage=Usage(0, EACH))
            case Cancelled():
                teams.remove(team)
            case _:
                # Somebody else holds the last of it.
                assert isinstance(admission, Denied), admission
    return seen


def _calling(desk: Desk, org: str) -> Call:
    """An action of an org that holds nothing yet, in its worker."""
    run = desk.admitted(desk.submit(org=org, cost_micros=0, tokens=0))
    arrival = Arrival(run.ref.id, run.action.stream, run.action.digest, {}, redelivered=False)
    return Call(desk.gov, Spool(Path(tempfile.gettempdir())), arrival, desk.lease, admission=run)
