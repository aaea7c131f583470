"""What recovery costs with many open actions: a sweep that finds nobody lost, and one that gives up lost workers' work.

    python -m benchmarks.recovery [--json] [--database postgres|sqlite] [--open 100000] [--lost 10000]

The open actions are copies of real ones, with their events, tickets and holds: a fifth parked, a fifth deferred, a
fifth running, `--lost` of them under ten workers whose heartbeat lapsed, the others under twenty that live; the rest
is queued. Measured without Celery: a sweep while every worker lives, one that gives up what the lapsed ones hold, one
more, and what the relay looks for every few seconds. The trail and the ledger are verified at the end.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.copies import copy, settled
from benchmarks.life import Life, make_finish, make_submission
from benchmarks.servers import DATABASES, servers
from governance.core.actions import Lease, State, Submission
from governance.core.instants import SECOND_US
from governance.core.policy import Risk
from governance.operations import audit, recover, relay
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admission, Admitted
from governance.operations.context import Governance
from governance.operations.finish import finish
from governance.operations.submit import submit
from governance.store import schema, workers

_POLICY = """
version: 1
streams:
  default: {window: 1d, timezone: UTC, limits: {actions: 100000000}}
  narrow: {window: 1d, timezone: UTC, limits: {actions: 1}, on_exhausted: defer}
rules:
  - {id: ask, match: {risk: high}, effect: approval, reason: "a person decides", approval: {timeout: 1d}}
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
"""
_LAPSED, _LIVING = 10, 20
_HOUR_US = 3600 * SECOND_US


def main() -> None:
    asked = _arguments()
    with servers((asked.database,)) as started:
        life = Life(started.database(asked.database), policy=_POLICY)
        try:
            answer = {"database": asked.database, **_measured(life.gov, asked.open, asked.lost)}
        finally:
            life.close()
    if asked.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in answer.items()))


def _measured(gov: Governance, count: int, lost: int) -> dict[str, object]:
    running = max(count // 5, lost)
    shares = {State.QUEUED: count - running - 2 * (count // 5), State.PARKED: count // 5, State.DEFERRED: count // 5}
    _register(gov)
    for state, wanted in shares.items():
        _record(gov, state, wanted)
    _record(gov, State.RUNNING, lost, worker="lapsed", of=_LAPSED)
    _record(gov, State.RUNNING, running - lost, worker="living", of=_LIVING)
    settled(gov)
    _beat(gov, "living", "lapsed")
    look_s = _seconds(lambda: _swept(gov, {}))
    _lapse(gov)
    _beat(gov, "living")
    reclaim_s = _seconds(lambda: _swept(gov, {State.QUEUED: lost}))
    _beat(gov, "living")
    again_s = _seconds(lambda: _swept(gov, {}))
    relay_s = _seconds(lambda: (relay.release_due(gov, "relay", 500), relay.silent(gov, 500)))
    found = audit.verify(gov)
    return {
        "open": count,
        "look_s": round(look_s, 3),
        "reclaimed": lost,
        "reclaim_s": round(reclaim_s, 2),
        "reclaimed_per_s": round(lost / reclaim_s, 1),
        "look_again_s": round(again_s, 3),
        "relay_look_s": round(relay_s, 3),
        "problems": len(found.problems),
    }


def _swept(gov: Governance, expected: dict[State, int]) -> None:
    reclaimed = recover.sweep(gov, "recovery", recover.suspects(gov)).reclaimed
    assert reclaimed == {str(state): count for state, count in expected.items()}, reclaimed


def _register(gov: Governance) -> None:
    """Every worker lives."""
    now_us = gov.clock.now_us()
    for name, count in (("lapsed", _LAPSED), ("living", _LIVING)):
        for number in range(count):
            workers.register(
                gov.store, f"{name}-{number}", 1, now_us, host=None, queues=None, slots=None, ready_us=None
            )


def _beat(gov: Governance, *names: str) -> None:
    """They were heard of just now."""
    for name in names:
        values = {"now": gov.clock.now_us(), "like": f"{name}-%"}
        gov.store.run("UPDATE workers SET heartbeat_us = :now WHERE id LIKE :like", values)


def _lapse(gov: Governance) -> None:
    """They were not heard of for an hour."""
    ago_us = gov.clock.now_us() - _HOUR_US
    gov.store.run("UPDATE workers SET heartbeat_us = :ago WHERE id LIKE 'lapsed-%'", {"ago": ago_us})


def _record(gov: Governance, state: State, count: int, *, worker: str = "", of: int = 1) -> None:
    """`count` actions in `state`: a real one, and copies of it with all that is theirs."""
    if count == 0:
        return
    made = _template(gov, state, Lease(f"{worker}-0", "1"))
    copied, values = "{column} || '-' || n", {"action": made.action_id}
    leased = {"lease_worker": f"'{worker}-' || (n % {of})"} if worker else {}
    ids = ("id", "command_id", "correlation_id", "ticket_id")
    changed = {**dict.fromkeys(ids, copied), "created_us": "{column} + n", **leased}
    copies = count - 1
    copy(gov, schema.work.actions, "id = :action", copies, changed, values)
    copy(
        gov, schema.decisions.tickets, "action_id = :action", copies, dict.fromkeys(("id", "action_id"), copied), values
    )
    copy(gov, schema.ledger.entries, "action_id = :action", copies, {"action_id": copied}, values)
    copy(gov, schema.trail.events, "action_id = :action", copies, {"action_id": copied}, values)
    gov.store.run(
        """UPDATE accounts SET held = held + :copies * (SELECT e.held_delta FROM entries e
                WHERE e.action_id = :action AND e.account_id = accounts.id)
            WHERE id IN (SELECT account_id FROM entries WHERE action_id = :action)""",
        {"action": made.action_id, "copies": copies},
    )


def _template(gov: Governance, state: State, lease: Lease) -> Submission:
    """A real action in `state`."""
    changes: dict[str, Any] = {}
    if state is State.PARKED:
        changes = {"risk": Risk.HIGH}
    if state is State.DEFERRED:
        changes = {"stream": "narrow"}
        # Another one takes all there is until the next window.
        admission = _arrives(gov, _submitted(gov, changes), lease)
        assert isinstance(admission, Admitted), admission
        finish(gov, make_finish(gov, admission, "null"))
    made = _submitted(gov, changes)
    if state in (State.RUNNING, State.DEFERRED):
        _arrives(gov, made, lease)
    found = gov.store.read("SELECT state FROM actions WHERE id = :id", {"id": made.action_id})
    assert found[0][0] == state, found
    return made


def _submitted(gov: Governance, changes: dict[str, Any]) -> Submission:
    made = replace(make_submission(0), **changes)
    submit(gov, made)
    return made


def _arrives(gov: Governance, made: Submission, lease: Lease) -> Admission:
    return admit(gov, Arrival(made.action_id, made.stream, made.digest, {"number": 0}, redelivered=False), lease)


def _seconds(operation: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    operation()
    return time.perf_counter() - began_s


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A recovery sweep with many open actions.")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--database", choices=DATABASES, default="postgres")
    parser.add_argument("--open", type=int, default=100_000, help="actions that are not over; at least 10")
    parser.add_argument("--lost", type=int, default=10_000, help="of the running ones, those of lapsed workers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
