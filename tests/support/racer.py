"""Eight processes that start at one moment and do the same thing to one database."""

import json
import multiprocessing.queues
import multiprocessing.synchronize
import queue
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from governance.clock import SystemClock
from governance.core.actions import Lease
from governance.core.ledger import Usage
from governance.core.principals import Principal
from governance.core.switches import Mode, Scope
from governance.errors import StateConflict
from governance.operations import decide, switches
from governance.operations.answers import Admitted, Denied
from governance.operations.escalate import escalate_overdue
from tests.support import spenders
from tests.support.forks import FORKS
from tests.support.governed import ANN, Desk, make_governance, submission

RACERS = 8


def spend(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Admits and finishes actions of random cost on one budget, a stream's, until so many of them were asked."""
    stream, count = argument.split()
    seen: Counter[str] = Counter()
    for _ in range(int(count)):
        cost = rng.randrange(1, 5000)
        made = desk.submit(stream=stream, cost_micros=cost, tokens=0)
        admission = desk.arrive(made)
        if isinstance(admission, Admitted):
            seen["admitted"] += 1
            desk.finish(admission, usage=Usage(cost_micros=rng.randrange(0, cost + 1), tokens=0))
        else:
            assert isinstance(admission, Denied), admission
            seen[admission.rule] += 1
    return seen


def take(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Asks for so many actions of cost 1000 in a stream and keeps what it holds."""
    stream, count = argument.split()
    seen: Counter[str] = Counter()
    for _ in range(int(count)):
        admission = desk.arrive(desk.submit(stream=stream, cost_micros=1000, tokens=0))
        seen["admitted" if isinstance(admission, Admitted) else "denied"] += 1
    return seen


def churn(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Takes and ends actions of every size on an account that is nearly used up, half of what is held by them.

    Some use more than they held, some nothing; what was used beyond a hold is counted.
    """
    seen: Counter[str] = Counter()
    for _ in range(int(argument)):
        cost = rng.choice((1, 700, 5000, 20_000))
        admission = desk.arrive(desk.submit(stream="striped", cost_micros=cost, tokens=rng.randrange(3)))
        if not isinstance(admission, Admitted):
            seen["denied"] += 1
            continue
        used = rng.choice((0, 0, 0, cost // 100, cost + 50))
        seen["beyond"] += max(used - cost, 0)
        seen["posted"] += used
        desk.finish(admission, usage=Usage(cost_micros=used, tokens=0))
    return seen


def charge(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Asks for each org, given as milliseconds:times:orgs; each action takes that long and uses all that it holds."""
    body_ms, times, *orgs = argument.split(":")
    seen: Counter[str] = Counter()
    for _ in range(int(times)):
        rng.shuffle(orgs)
        for org in orgs:
            admission = desk.arrive(desk.submit(org=org, cost_micros=10, tokens=10))
            if isinstance(admission, Admitted):
                time.sleep(int(body_ms) / 1000)
                desk.finish(admission, usage=Usage(10, 10))
                seen[f"{org} admitted"] += 1
            else:
                assert isinstance(admission, Denied), admission
                seen[f"{org} {admission.rule}"] += 1
    return seen


def same_messages(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Every racer gets a message for each of the same actions, in its own order."""
    ids = argument.split(",")
    rng.shuffle(ids)
    seen: Counter[str] = Counter()
    for action_id in ids:
        admission = desk.arrive(submission(action_id=action_id))
        seen[type(admission).__name__] += 1
        if isinstance(admission, Admitted):
            desk.finish(admission)
    return seen


def same_commands(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Every racer submits the same commands."""
    commands = [f"command-{n}" for n in range(int(argument))]
    rng.shuffle(commands)
    seen: Counter[str] = Counter()
    for command in commands:
        desk.submit(command_id=command)
        seen[type(desk.submitted).__name__] += 1
    return seen


def decisions(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Every racer approves or denies the same tickets."""
    ids = argument.split(",")
    rng.shuffle(ids)
    seen: Counter[str] = Counter()
    for action_id in ids:
        try:
            if rng.random() < 0.5:
                decide.approve(desk.gov, action_id, by=ANN, reason="fine", command_id=None)
            else:
                decide.deny(desk.gov, action_id, by=ANN, reason="no", command_id=None)
            seen["won"] += 1
        except StateConflict:
            seen["lost"] += 1
    return seen


def deliver(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """The racers share out messages, given as stream/id; who is admitted goes on. When each admission began and ended
    is kept in the folder named first.
    """
    folder, *messages = argument.split()
    number = number_of(desk)
    seen: Counter[str] = Counter()
    spans: list[tuple[float, float]] = []
    for message in messages[number::RACERS]:
        stream, action_id = message.split("/")
        began_s = time.monotonic()
        admission = desk.arrive(submission(action_id=action_id, stream=stream))
        if isinstance(admission, Admitted):
            spans.append((began_s, time.monotonic()))
        seen[type(admission).__name__] += 1
    Path(folder, f"{number}.json").write_text(json.dumps(spans))
    return seen


def exhaust(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Asks for actions of two streams in turn and keeps what it holds."""
    seen: Counter[str] = Counter()
    for _ in range(int(argument)):
        for stream in ("strict", "default"):
            seen[f"{stream} {type(desk.arrive(desk.submit(stream=stream))).__name__}"] += 1
    return seen


def engage(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Every racer engages a switch for each of the same streams."""
    seen: Counter[str] = Counter()
    for stream in argument.split(","):
        found = switches.engage(desk.gov, Scope.STREAM, stream, mode=Mode.KILL, reason="stop", by=ANN)
        seen["repeated" if found.repeated else "engaged"] += 1
        seen[found.switch.id] += 1
    return seen


def escalations(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Every racer sweeps, until nothing is asked any more."""
    seen: Counter[str] = Counter()
    while pending(desk):
        swept = escalate_overdue(desk.gov, desk.lease.worker_id)
        seen["moved up"] += swept.moved_up
        seen["denied"] += len(swept.denied)
    return seen


def last_moment(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Half of the racers sweep; the others approve tickets, given as id:expiry, each close to its expiry."""
    if number_of(desk) % 2:
        return escalations(desk, argument, rng)
    seen: Counter[str] = Counter()
    for ticket in argument.split(","):
        ticket_id, expires_us = ticket.split(":")
        at_us = int(expires_us) + rng.randrange(-30_000, 10_000)
        while desk.gov.clock.now_us() < at_us:
            pass
        try:
            decide.approve(desk.gov, ticket_id, by=ANN, reason="fine")
            seen["approved"] += 1
        except StateConflict as problem:
            seen[f"too late: {problem.args[2]}"] += 1
    return seen


def votes(desk: Desk, argument: str, rng: random.Random) -> Counter[str]:
    """Two racers for each of four people approve the same tickets, as often as it takes to be told so."""
    by = Principal(f"person-{number_of(desk) % 4}", frozenset({"approver"}))
    ids = argument.split(",")
    rng.shuffle(ids)
    seen: Counter[str] = Counter()
    for action_id in ids:
        while True:
            try:
                seen[decide.approve(desk.gov, action_id, by=by, reason="fine").state] += 1
            except StateConflict as problem:
                if problem.args[2] == "moving":
                    continue
                seen["refused"] += 1
            break
    return seen


def number_of(desk: Desk) -> int:
    return int(desk.lease.worker_id.removeprefix("racer-"))


def pending(desk: Desk) -> bool:
    return bool(desk.gov.store.read("SELECT 1 FROM tickets WHERE state = 'pending' LIMIT 1", {}))


JOBS: dict[str, Callable[[Desk, str, random.Random], Counter[str]]] = {
    job.__name__: job
    for job in (
        *(spend, take, charge, churn, same_messages, same_commands, decisions),
        *(deliver, exhaust, engage, escalations, last_moment, votes),
        *(
            spenders.record,
            spenders.use,
            spenders.straddle,
            spenders.call_models,
            spenders.die_calling,
            spenders.use_up,
        ),
    )
}


def race(url: str, job: str, argument: str, racers: int) -> Counter[str]:
    """Runs `job` in `racers` processes at once; what all of them saw, added up. Raises what a racer raised."""
    barrier = FORKS.Barrier(racers)
    answers: multiprocessing.queues.Queue[Counter[str] | str] = FORKS.Queue()
    processes = [
        FORKS.Process(target=_racer, args=(url, job, argument, seed, barrier, answers), daemon=True)
        for seed in range(racers)
    ]
    seen: Counter[str] = Counter()
    try:
        for process in processes:
            process.start()
        for _ in processes:
            answer = answers.get(timeout=120)
            assert isinstance(answer, Counter), answer
            seen += answer
    except queue.Empty:
        raise AssertionError(f"a racer of {job} did not answer; exit codes {[p.exitcode for p in processes]}") from None
    finally:
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        answers.close()
        answers.join_thread()
    return seen


def killed(url: str, job: str, argument: str) -> None:
    """Runs `job` in a process of its own, as the first racer, and sees it killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.racer"])
    # Kept until it ends: they are gone with the last name for them here.
    barrier, answers = context.Barrier(1), context.Queue()
    process = context.Process(target=_racer, args=(url, job, argument, 0, barrier, answers), daemon=True)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL, process.exitcode
    answers.close()
    process.close()


def _racer(
    url: str,
    job: str,
    argument: str,
    seed: int,
    barrier: "multiprocessing.synchronize.Barrier",
    answers: "multiprocessing.queues.Queue[Counter[str] | str]",
) -> None:
    desk = Desk(make_governance(url, clock=SystemClock()), Lease(f"racer-{seed}", "1"))
    barrier.wait(timeout=60)
    try:
        answers.put(JOBS[job](desk, argument, random.Random(seed)))
    except Exception as problem:
        answers.put(f"{type(problem).__name__}: {problem}")
    finally:
        desk.gov.store.close()
