"""What the metrics count, each in one statement that reads only what is alive."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from governance.core.switches import Switch
from governance.store.engine import Store
from governance.store.switches import in_scope

_STATES = ("queued", "parked", "deferred", "running", "in_doubt", "succeeded", "failed", "denied", "cancelled")
# An action is as old as its last wait: until its time, for a person, or since it was submitted.
_SINCE = "coalesce(a.not_before_us, t.decided_us, a.created_us)"


def live_actions(store: Store, now_us: int, engaged: Sequence[Switch]) -> list[tuple[str, str, int, int, int, int]]:
    """(state, stream, how many, of them runnable, the oldest runnable one's instant or 0, of them unpublished)."""
    stopped, values = _in_any_scope(store, engaged)
    due = "(a.not_before_us IS NULL OR a.not_before_us <= :now)"
    runnable = f"a.state = 'queued' AND NOT a.direct AND {due} AND NOT ({stopped})"
    unpublished = (
        f"a.state NOT IN ('running', 'in_doubt', 'deferred') AND a.published_us IS NULL AND NOT a.direct AND {due}"
    )
    listed = ", ".join(f"'{state}'" for state in _STATES)
    found = store.read(
        f"""SELECT a.state, a.stream, count(*), sum(CASE WHEN {runnable} THEN 1 ELSE 0 END),
                coalesce(min(CASE WHEN {runnable} THEN {_SINCE} END), 0), sum(CASE WHEN {unpublished} THEN 1 ELSE 0 END)
            FROM actions a LEFT JOIN tickets t ON a.state = 'queued' AND t.id = a.ticket_id
            WHERE a.delivered_us IS NULL AND a.state IN ({listed}) GROUP BY a.state, a.stream""",
        {"now": now_us, **values},
    )
    return [(str(r[0]), str(r[1]), int(r[2]), int(r[3]), int(r[4]), int(r[5])) for r in found]


def pending_tickets(store: Store) -> tuple[int, int | None]:
    """How many requests wait for a person, and since when the first one does."""
    count, oldest_us = store.read("SELECT count(*), min(requested_us) FROM tickets WHERE state = 'pending'", {})[0]
    return int(count), None if oldest_us is None else int(oldest_us)


def alerts_by_kind(store: Store) -> dict[str, int]:
    found = store.read("SELECT kind, count(*) FROM alerts GROUP BY kind ORDER BY kind", {})
    return {str(row[0]): int(row[1]) for row in found}


def unsealed_events(store: Store) -> int:
    return int(store.read("SELECT count(*) FROM events WHERE seq IS NULL", {})[0][0])


def last_ticks(store: Store, jobs: Sequence[str]) -> dict[str, int | None]:
    """When each job's last tick was claimed; None of one that never ran."""
    latest = ", ".join(
        f"(SELECT claimed_us FROM ticks WHERE job = :job{number} ORDER BY tick DESC LIMIT 1)"
        for number in range(len(jobs))
    )
    found = store.read(f"SELECT {latest}", {f"job{number}": job for number, job in enumerate(jobs)})[0]
    return {job: None if at_us is None else int(at_us) for job, at_us in zip(jobs, found, strict=True)}


def _in_any_scope(store: Store, engaged: Sequence[Switch]) -> tuple[str, Mapping[str, Any]]:
    """The condition on `actions a` of being in the scope of one of these switches."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for number, switch in enumerate(engaged):
        condition, own = in_scope(store, switch)
        conditions.append(f"coalesce({re.sub(r':(?=[a-z])', f':s{number}_', condition)}, 1 = 0)")
        values |= {f"s{number}_{name}": value for name, value in own.items()}
    return " OR ".join(conditions) or "1 = 0", values
