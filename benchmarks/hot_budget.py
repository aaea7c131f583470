"""One hot budget: many clients hold and post on the same account at once, until its limit is reached exactly.

    python -m benchmarks.hot_budget [--json] [--clients 50] [--stripes 16] [--holds N] [--processes P]

A client's cycle is a hold and a post on one account, each the fleet's own guarded write (`governance.store.changes`):
a hold moves one recorded action from queued to running, locks the account or one of its stripes, takes the amount if it
fits, and appends a ledger entry and an audit event; a post ends it. Each is one statement and one commit that is waited
for. The actions were recorded beforehand.

The limit is 80 % of what the clients ask for and a post uses the whole hold, so what is used and held never sinks: any
amount beyond the limit is an overshoot, and a denial before it was reached is a false one. A hold that is refused is
denied when the account, read afterwards, has no room; otherwise it is tried again.
"""

import argparse
import json
import multiprocessing
import multiprocessing.synchronize
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.life import Life, make_submission, percentile
from benchmarks.servers import servers
from governance.core.actions import State
from governance.core.changes import ActionRef, Author
from governance.core.endings import closing_payload, succeeded
from governance.core.ledger import Hold, Unit, Usage, settle
from governance.core.sessions import account_id
from governance.core.transitions import admitted
from governance.operations.sessions import in_force
from governance.operations.submit import submit
from governance.store import schema
from governance.store.accounts import ACCOUNTS
from governance.store.changes import apply, take
from governance.store.engine import Store

_AMOUNT = 1000
_LIMIT_PERCENT = 80
_START_S_MAX = 60.0
_RUN_S_MAX = 300.0
_POLICY = """
version: 1
streams:
  default: {{window: 1d, timezone: UTC, limits: {{cost_usd: "{limit_usd}"}}, stripes: {stripes}}}
rules:
  - {{id: routine, match: {{risk: [low, medium]}}, effect: allow}}
"""


@dataclass
class Seen:
    """What clients saw: instants of the machine's monotonic clock, spans in milliseconds."""

    began_s: float = 0.0
    ended_s: float = 0.0
    admitted: int = 0
    denied: int = 0
    hold_ms: list[float] = field(default_factory=list)


def main() -> None:
    asked = _arguments()
    with servers(("postgres",), connections_max=asked.clients + 20) as started:
        answer = measure(started.database("postgres"), asked.clients, asked.holds, asked.processes, asked.stripes)
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:16} {value}" for name, value in answer.items()))


def measure(url: str, clients: int, holds: int, processes: int, stripes: int) -> dict[str, object]:
    """Asks for `holds` holds of equal size with `clients` threads spread over `processes`."""
    processes = max(min(processes, clients), 1)
    limit = holds * _LIMIT_PERCENT // 100
    policy = _POLICY.format(limit_usd=f"{limit * _AMOUNT / 1_000_000:.6f}", stripes=stripes)
    life = Life(url, policy=policy)
    try:
        session, names = _record(life, holds)
        account = account_id(session, Unit.COST)
        seen = _run(url, policy, session, names, clients, processes)
        _, used = _account(life.gov.store, account)
    finally:
        life.close()
    began_s, ended_s = min(part.began_s for part in seen), max(part.ended_s for part in seen)
    admitted_count = sum(part.admitted for part in seen)
    hold_ms = [span for part in seen for span in part.hold_ms]
    return {
        "database": "postgres",
        "clients": clients,
        "processes": processes,
        "stripes": stripes,
        "holds": admitted_count,
        "denied": sum(part.denied for part in seen),
        "holds_per_s": round(admitted_count / (ended_s - began_s), 1),
        "hold_p50_ms": round(percentile(hold_ms, 50), 2),
        "hold_p99_ms": round(percentile(hold_ms, 99), 2),
        "overshoot": max(used - limit * _AMOUNT, 0),
        "false_denials": max(limit - admitted_count, 0),
    }


def _account(store: Store, account: str) -> tuple[int, int]:
    """Its limit, and what is posted and held."""
    limit, used = store.read(f"SELECT limit_amount, posted + held FROM {ACCOUNTS} c WHERE id = :id", {"id": account})[0]
    return int(limit), int(used)


def _record(life: Life, holds: int) -> tuple[str, list[str]]:
    """Submits one action and copies its row, so that every client has actions of its own."""
    first = make_submission(0)
    submit(life.gov, first)
    columns = ", ".join(f'"{c.name}"' for c in schema.work.actions.columns if c.name not in ("id", "command_id"))
    life.gov.store.run(
        f"""INSERT INTO actions (id, command_id, {columns})
            SELECT id || '-' || n, id || '-' || n, {columns} FROM actions, generate_series(1, :holds) AS n""",
        {"holds": holds},
    )
    life.gov.store.run("ANALYZE actions", {})
    session = in_force(life.gov, first.stream, life.gov.clock.now_us()).session.id
    return session, [f"{first.action_id}-{number}" for number in range(1, holds + 1)]


def _run(url: str, policy: str, session: str, names: list[str], clients: int, processes: int) -> list[Seen]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    answers = context.Queue()
    shares = [[names[client::clients] for client in range(process, clients, processes)] for process in range(processes)]
    children = [
        context.Process(target=_child, args=(url, policy, session, share, barrier, answers), daemon=True)
        for share in shares
    ]
    try:
        for child in children:
            child.start()
        seen: list[Seen] = []
        for _ in children:
            answer = answers.get(timeout=_RUN_S_MAX)
            if not isinstance(answer, Seen):
                raise RuntimeError(f"a client failed: {answer}")
            seen.append(answer)
        return seen
    finally:
        for child in children:
            child.join(timeout=10)
            if child.is_alive():
                child.kill()
                child.join()


def _child(
    url: str,
    policy: str,
    session: str,
    shares: list[list[str]],
    barrier: "multiprocessing.synchronize.Barrier",
    answers: "multiprocessing.Queue[Seen | str]",
) -> None:
    life = Life(url, policy=policy, pool_size=len(shares))
    ready = threading.Barrier(len(shares) + 1)
    try:
        with ThreadPoolExecutor(len(shares)) as pool:
            clients = [pool.submit(_client, life, session, share, ready) for share in shares]
            # Every connection is open before the first hold.
            ready.wait(timeout=_START_S_MAX)
            barrier.wait(timeout=_START_S_MAX)
            began_s = time.monotonic()
            ready.wait(timeout=_START_S_MAX)
            seen = [client.result() for client in clients]
        answers.put(
            Seen(
                began_s=began_s,
                ended_s=max(part.ended_s for part in seen),
                admitted=sum(part.admitted for part in seen),
                denied=sum(part.denied for part in seen),
                hold_ms=[span for part in seen for span in part.hold_ms],
            )
        )
    except Exception as problem:
        answers.put(f"{type(problem).__name__}: {problem}")
    finally:
        life.close()


def _client(life: Life, session: str, names: list[str], ready: threading.Barrier) -> Seen:
    seen = Seen()
    store, clock = life.gov.store, life.gov.clock
    account = account_id(session, Unit.COST)
    wanted = (Hold(account, Unit.COST, _AMOUNT, life.gov.policy.plan_for("default").stripes),)
    store.read("SELECT 1", {})
    ready.wait(timeout=_START_S_MAX)
    ready.wait(timeout=_START_S_MAX)
    for name in names:
        began_s = time.monotonic()
        by = Author("worker:bench", clock.now_us())
        queued = ActionRef(name, session, State.QUEUED, 0)
        hold = admitted(
            queued, by, session_id=session, lease=life.lease, holds=wanted, ticket=None, rule="routine", epoch=0
        )
        while (taken := take(store, hold)) is None:
            limit, used = _account(store, account)
            if used + _AMOUNT > limit:
                break
        if taken is None:
            seen.denied += 1
            continue
        seen.hold_ms.append((time.monotonic() - began_s) * 1000)
        seen.admitted += 1
        closings = settle(taken, Usage(cost_micros=_AMOUNT, tokens=0))
        running = ActionRef(name, session, State.RUNNING, 1)
        payload = closing_payload(closings)
        posted = apply(store, succeeded(running, by, result="null", closings=closings, closing_payload=payload))
        assert posted, f"{name} was taken from its client"
        seen.ended_s = time.monotonic()
    return seen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Holds and posts of many clients on one budget, on PostgreSQL.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--stripes", type=int, default=16, help="rows that the budget's account is kept in")
    parser.add_argument("--holds", type=int, default=5000, help="how many are asked for; 80 %% of them fit")
    parser.add_argument("--processes", type=int, default=2, help="processes that the clients are threads of")
    return parser.parse_args()


if __name__ == "__main__":
    main()
