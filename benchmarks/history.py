"""What a long history costs: governed actions with millions of old rows in the database, against an empty one.

    python -m benchmarks.history [--json] [--database postgres|sqlite] [--actions 1000000] [--rounds 40] [--seconds 0.5]

The history is recorded in bulk: copies of one real action that ended, with its five events, six entries and the
accounts of its session, spread over a hundred sessions whose windows are over. (The copies' hashes are the original's:
nobody verifies them here.) Then submit, admit, finish, without Celery, in turn on both databases, which the same server
holds; and everything that beat drives, once each, with the rows that it read by scanning a table of history.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

from benchmarks.copies import copy, settled
from benchmarks.life import Life, make_finish, make_submission
from benchmarks.servers import DATABASES, servers
from governance.core.actions import Lease
from governance.core.instants import SECOND_US
from governance.operations import audit, clearing, drill_schedule, escalate, notify, recover, relay, retention
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admitted
from governance.operations.context import Governance
from governance.operations.finish import Settled, finish
from governance.operations.running import emit
from governance.operations.submit import submit
from governance.store import schema

_SESSIONS = 100
_EVENTS = 5
_WARM_CYCLES = 50
_DAY_US = 24 * 3600 * SECOND_US
_HISTORY = ("actions", "events", "entries", "tickets")


def main() -> None:
    asked = _arguments()
    with servers((asked.database,)) as started:
        empty, full = (Life(started.database(asked.database)) for _ in range(2))
        try:
            events = _record(full.gov, asked.actions)
            answer = {
                "database": asked.database,
                "actions": asked.actions,
                "events": events,
                **_compared(empty, full, asked.rounds, asked.seconds),
                "jobs": _jobs(full.gov),
            }
        finally:
            empty.close()
            full.close()
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in answer.items()))


def _record(gov: Governance, count: int) -> int:
    """Copies one finished action `count` times; how many events there are then."""
    action_id, session_id = _template(gov)
    each = -(-count // _SESSIONS)
    first_event = gov.store.read("SELECT min(seq) FROM events WHERE action_id = :id", {"id": action_id})[0][0]
    session, of_each = "n / CAST(:each AS bigint)", "n % CAST(:each AS bigint)"
    copied = "{column} || '-' || n"
    renamed = "replace({column}, :session, :session || '-' || (%s))"
    long_ago = f"{{column}} - {_SESSIONS} * {_DAY_US} + n"
    window = dict.fromkeys(("window_start_us", "window_end_us"), f"{{column}} - (n + 1) * {_DAY_US}")
    times = ("created_us", "published_us", "started_us", "finished_us", "delivered_us")
    for table, key, wanted, changed in (
        (schema.work.sessions, "id = :session", _SESSIONS, {"id": renamed % "n", **window}),
        (
            schema.ledger.accounts,
            "scope_id = :session",
            _SESSIONS,
            {**dict.fromkeys(("id", "account", "scope_id"), renamed % "n"), **window},
        ),
        (
            schema.work.actions,
            "id = :action",
            count,
            {
                **dict.fromkeys(("id", "command_id", "correlation_id"), copied),
                **dict.fromkeys(times, long_ago),
                "session_id": renamed % session,
            },
        ),
        (
            schema.ledger.entries,
            "action_id = :action",
            count,
            {"account_id": renamed % session, "action_id": copied, "at_us": long_ago},
        ),
        (
            schema.trail.events,
            "action_id = :action",
            count,
            {
                "session_id": renamed % session,
                "seq": f"({of_each}) * {_EVENTS} + {{column}} - {first_event} + 1",
                "action_id": copied,
                "at_us": long_ago,
            },
        ),
    ):
        copy(gov, table, key, wanted, changed, {"each": each, "session": session_id, "action": action_id})
    settled(gov)
    return int(gov.store.read("SELECT count(*) FROM events", {})[0][0])


def _template(gov: Governance) -> tuple[str, str]:
    """An action that told of itself twice and succeeded, sealed: its id and its session's."""
    submission = make_submission(0)
    submit(gov, submission)
    arrival = Arrival(submission.action_id, submission.stream, submission.digest, {"number": 0}, redelivered=False)
    admission = admit(gov, arrival, Lease("history#1", "1"))
    assert isinstance(admission, Admitted), admission
    for kind in ("looked", "answered"):
        emit(gov, admission.ref, kind, {"case": "c1"}, "worker:bench")
    assert isinstance(finish(gov, make_finish(gov, admission, "0")), Settled)
    audit.seal(gov)
    return submission.action_id, admission.ref.session_id


def _compared(empty: Life, full: Life, rounds: int, seconds: float) -> dict[str, object]:
    for life in (empty, full):
        for _ in range(_WARM_CYCLES):
            life.cycle()
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    for number in range(rounds):
        order = (("empty", empty), ("full", full))
        for name, life in order if number % 2 == 0 else order[::-1]:
            rates[name].append(_cycles_per_s(life, seconds))
    ratios = [of / to for of, to in zip(rates["full"], rates["empty"], strict=True)]
    return {
        **{f"{name}_per_s": round(statistics.median(found), 1) for name, found in rates.items()},
        # Of pairs that follow each other at once: what else the machine does changes more slowly.
        "ratio": round(statistics.median(ratios), 3),
        "round_ratios": [round(ratio, 3) for ratio in ratios],
    }


def _cycles_per_s(life: Life, seconds: float) -> float:
    began_s = time.perf_counter()
    cycles = 0
    while time.perf_counter() - began_s < seconds:
        life.cycle(cycles)
        cycles += 1
    return cycles / (time.perf_counter() - began_s)


def _jobs(gov: Governance) -> dict[str, dict[str, float]]:
    """What each of beat's jobs takes when there is nothing to do for it, and how much history it scanned."""
    audit.seal(gov)
    jobs: dict[str, Callable[[], object]] = {
        "relay": lambda: (
            relay.release_due(gov, "relay", 500),
            relay.unpublished(gov, 500),
            relay.silent(gov, 500),
        ),
        "recovery": lambda: recover.sweep(gov, "recovery", recover.suspects(gov)),
        "switches": lambda: clearing.sweep(gov, "switches"),
        "escalation": lambda: escalate.escalate_overdue(gov, "escalation"),
        "notices": lambda: notify.anything_to_tell(gov),
        "sealing": lambda: audit.seal(gov),
        "drills": lambda: (drill_schedule.watch(gov, 3600), drill_schedule.due(gov, 0)),
        "retention": lambda: retention.prune_aged(gov, 10_000, 1),
    }
    return {name: _job(gov, job) for name, job in jobs.items()}


def _job(gov: Governance, job: Callable[[], object]) -> dict[str, float]:
    job()
    before = _scanned(gov)
    began_s = time.perf_counter()
    job()
    took_ms = (time.perf_counter() - began_s) * 1000
    return {"ms": round(took_ms, 2), "scanned": _scanned(gov) - before}


def _scanned(gov: Governance) -> int:
    """Rows of history read without an index so far; PostgreSQL counts them, SQLite does not."""
    if not gov.store.is_postgresql:
        return 0
    gov.store.run("SELECT pg_stat_force_next_flush()", {})
    found = gov.store.run(
        "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname = ANY(:tables)",
        {"tables": list(_HISTORY)},
    )
    return int(found[0][0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Governed actions with a long history, against none.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=DATABASES, default="postgres")
    parser.add_argument("--actions", type=int, default=1_000_000, help="finished actions, of five events each")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of each round on each database")
    return parser.parse_args()


if __name__ == "__main__":
    main()
