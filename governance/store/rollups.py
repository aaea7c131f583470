"""Roll-ups: an hour's figures from the trail, and the rows that outlive it.

An hour's events are found by `ix_events_at_us`; their sessions, tickets and rules by primary key; drills by reading
their few rows. What drills do in sessions of their own is none of the fleet's work and is left out.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from governance.core.actions import TERMINAL
from governance.core.events import BUDGET_THRESHOLD, MODEL_ACCESS_DENIED, TOKEN_BUDGET_EXHAUSTED
from governance.core.ledger import Unit
from governance.core.rollups import ALL, FLEET, HOUR_US, Figure, Row, latency_bound_ms
from governance.core.tickets import TicketState
from governance.store.engine import Reader, Store, rows
from governance.store.events import payload_field
from governance.store.usage import PARTS

_IN_HOUR: Final = """FROM events e JOIN sessions s ON s.id = e.session_id
    WHERE e.at_us >= :start AND e.at_us < :end AND e.session_id NOT IN (SELECT session_id FROM drills)"""
_DECIDED: Final = {
    TicketState.APPROVED: "approved",
    TicketState.CONSUMED: "approved",
    TicketState.DENIED: "denied",
    TicketState.EXPIRED: "expired",
    TicketState.CANCELLED: "cancelled",
}
# Events that are counted by whom they are about.
_BY_PARTS: Final = {
    TOKEN_BUDGET_EXHAUSTED: Figure.OVERDRAWN,
    MODEL_ACCESS_DENIED: Figure.MODEL_DENIED,
    BUDGET_THRESHOLD: Figure.THRESHOLD,
}
_PARTS: Final = ("user", "team", "org", "agent", "model", "budget")
_ANSWERS: Final = ("approved", "denied")


def first_event_us(store: Reader, from_us: int, until_us: int) -> int | None:
    """The first instant of an event in [from, until)."""
    found = store.read(
        "SELECT at_us FROM events WHERE at_us >= :start AND at_us < :end ORDER BY at_us LIMIT 1",
        {"start": from_us, "end": until_us},
    )
    return int(found[0][0]) if found else None


def unsealed_since_us(store: Reader) -> int | None:
    """The earliest instant of an event that is not sealed yet."""
    # The sign keeps either planner from walking ix_events_at_us through all that is sealed.
    found = store.read("SELECT min(+at_us) FROM events WHERE seq IS NULL", {})
    return None if found[0][0] is None else int(found[0][0])


def events_by_hour(store: Reader, from_us: int, until_us: int) -> Mapping[int, int]:
    found = store.read(
        """SELECT at_us / :hour AS hour, count(*) FROM events WHERE at_us >= :start AND at_us < :end GROUP BY 1""",
        {"hour": HOUR_US, "start": from_us, "end": until_us},
    )
    return {int(row[0]) * HOUR_US: int(row[1]) for row in found}


def read_hour(store: Store, hour_us: int) -> tuple[int, list[Row]]:
    """How many events the hour has, and its figures, all as of one moment."""
    span = {"start": hour_us, "end": hour_us + HOUR_US}
    tally: Counter[tuple[str, Figure, str]] = Counter()
    with store.snapshot() as reader:
        events = int(reader.read("SELECT count(*) FROM events WHERE at_us >= :start AND at_us < :end", span)[0][0])
        if events:
            _count_actions(reader, span, tally)
            _count_rules(reader, span, tally, payload_field(store))
            _count_decisions(reader, span, tally, payload_field(store))
            _count_by_parts(reader, span, tally)
            _sum_cost(reader, span, tally, store.is_postgresql)
            _count_drills(reader, span, tally)
    return events, [Row(stream, figure, label, value) for (stream, figure, label), value in sorted(tally.items())]


def keep(store: Store, hour_us: int, events: int, figures: Sequence[Row], now_us: int) -> bool:
    """Puts an hour's figures in place of what was kept; False when more of its events were rolled up before."""
    with store.transaction() as connection:
        kept = rows(
            connection,
            """INSERT INTO rollup_hours (hour_us, events, rolled_us) VALUES (:hour, :events, :now)
                ON CONFLICT (hour_us) DO UPDATE SET events = excluded.events, rolled_us = excluded.rolled_us
                    WHERE rollup_hours.events <= excluded.events RETURNING hour_us""",
            {"hour": hour_us, "events": events, "now": now_us},
        )
        if not kept:
            return False
        rows(connection, "DELETE FROM rollups WHERE hour_us = :hour", {"hour": hour_us})
        for row in figures:
            rows(
                connection,
                """INSERT INTO rollups (hour_us, stream, figure, label, value)
                    VALUES (:hour, :stream, :figure, :label, :value)""",
                {
                    "hour": hour_us,
                    "stream": row.stream,
                    "figure": str(row.figure),
                    "label": row.label,
                    "value": row.value,
                },
            )
    return True


def last_hour(store: Reader) -> int | None:
    """The start of the latest hour that is rolled up."""
    found = store.read("SELECT max(hour_us) FROM rollup_hours", {})
    return None if found[0][0] is None else int(found[0][0])


def events_kept(store: Reader, from_us: int, until_us: int) -> Mapping[int, int]:
    """By hour, how many events its roll-up was made from."""
    found = store.read(
        "SELECT hour_us, events FROM rollup_hours WHERE hour_us >= :start AND hour_us < :end",
        {"start": from_us, "end": until_us},
    )
    return {int(row[0]): int(row[1]) for row in found}


def sums(
    store: Reader, from_us: int, until_us: int, *, bar_us: int, stream: str | None = None
) -> Mapping[int, Mapping[tuple[str, str], int]]:
    """Tallies of the hours in [from, until), `bar_us` together, numbered from 0; of one stream, or of all."""
    found = store.read(
        """SELECT (hour_us - :start) / :bar AS bar, figure, label, sum(value) FROM rollups
            WHERE hour_us >= :start AND hour_us < :end AND (CAST(:stream AS text) IS NULL OR stream = :stream)
            GROUP BY 1, 2, 3""",
        {"start": from_us, "end": until_us, "bar": bar_us, "stream": stream},
    )
    bars: dict[int, dict[tuple[str, str], int]] = {}
    for bar, figure, label, value in found:
        bars.setdefault(int(bar), {})[str(figure), str(label)] = int(value)
    return bars


def ends_by_stream(store: Reader, from_us: int, until_us: int) -> Mapping[str, Mapping[tuple[str, str], int]]:
    """By stream, what ended and what was reclaimed in the hours in [from, until)."""
    found = store.read(
        """SELECT stream, figure, label, sum(value) FROM rollups
            WHERE hour_us >= :start AND hour_us < :end AND figure IN (:ended, :reclaimed)
            GROUP BY stream, figure, label""",
        {"start": from_us, "end": until_us, "ended": str(Figure.ENDED), "reclaimed": str(Figure.RECLAIMED)},
    )
    streams: dict[str, dict[tuple[str, str], int]] = {}
    for stream, figure, label, value in found:
        streams.setdefault(str(stream), {})[str(figure), str(label)] = int(value)
    return streams


def _count_actions(reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]]) -> None:
    found = reader.read(
        f"SELECT s.stream, e.kind, e.state, count(*) {_IN_HOUR} AND e.state IS NOT NULL GROUP BY 1, 2, 3", span
    )
    for stream, kind, state, number in found:
        if state in TERMINAL:
            tally[stream, Figure.ENDED, state] += number
        if kind == "action.reclaimed":
            tally[stream, Figure.RECLAIMED, state] += number
        if state == "parked":
            tally[stream, Figure.APPROVALS, "requested"] += number


def _count_rules(reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]], field: str) -> None:
    found = reader.read(
        f"""SELECT s.stream, e.state, {field}'rule', count(*) {_IN_HOUR} AND e.state IN ('denied', 'deferred')
            GROUP BY 1, 2, 3""",
        span,
    )
    for stream, state, rule, number in found:
        if state == "denied":
            tally[stream, Figure.DENIED, rule or "unknown"] += number
        if rule and rule.startswith("budget:"):
            tally[stream, Figure.EXHAUSTED, rule.removeprefix("budget:")] += number
    # A budget that stops its session says so once.
    stopped = reader.read(
        f"SELECT s.stream, {field}'reason' {_IN_HOUR} AND e.kind = 'switch.engaged' AND e.actor = 'governance'", span
    )
    for stream, reason in stopped:
        tally[stream, Figure.EXHAUSTED, reason.split(":")[1]] += 1


def _count_decisions(
    reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]], field: str
) -> None:
    found = reader.read(
        f"""SELECT s.stream, t.state, e.at_us - t.requested_us FROM events e JOIN sessions s ON s.id = e.session_id
                JOIN tickets t ON t.id = {field}'ticket' AND t.decided_us = e.at_us
            WHERE e.at_us >= :start AND e.at_us < :end AND e.session_id NOT IN (SELECT session_id FROM drills)
                AND e.kind IN ('action.released', 'action.denied', 'action.cancelled')""",
        span,
    )
    for stream, state, latency_us in found:
        decided = _DECIDED[TicketState(state)]
        tally[stream, Figure.APPROVALS, decided] += 1
        if decided in _ANSWERS:
            tally[stream, Figure.LATENCY, str(latency_bound_ms(int(latency_us)))] += 1


def _count_by_parts(reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]]) -> None:
    """Exhausted budgets, denied models and crossed thresholds: each once in all, and for each part of its payload."""
    kinds = ", ".join(f"'{kind}'" for kind in _BY_PARTS)
    for stream, kind, payload in reader.read(
        f"SELECT s.stream, e.kind, e.payload {_IN_HOUR} AND e.kind IN ({kinds})", span
    ):
        figure, said = _BY_PARTS[kind], json.loads(payload)
        tally[stream, figure, ALL] += 1
        for part in _PARTS:
            if said.get(part):
                tally[stream, figure, f"{part} {said[part]}"] += 1


def _sum_cost(
    reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]], is_postgresql: bool
) -> None:
    """What ended attempts posted on their sessions' accounts: the same money on other scopes is not spent again."""
    posted = (
        "json_each_text(e.payload::json -> 'posted') p(key, value)"
        if is_postgresql
        else "json_each(e.payload, '$.posted') p"
    )
    found = reader.read(
        f"""WITH attempts AS (
                SELECT s.stream, e.action_id, e.attempt, a.model, 0 AS actions, 0 AS tokens,
                    sum(CAST(p.value AS bigint)) AS micros
                FROM events e JOIN sessions s ON s.id = e.session_id LEFT JOIN actions a ON a.id = e.action_id
                    CROSS JOIN {posted}
                WHERE e.at_us >= :start AND e.at_us < :end AND e.session_id NOT IN (SELECT session_id FROM drills)
                    AND e.state IS NOT NULL AND e.state <> 'running' AND p.key LIKE :account
                GROUP BY 1, 2, 3, 4),
            {PARTS}
            SELECT stream, model, sum(micros) FROM parts GROUP BY 1, 2""",
        {**span, "account": f"session:%:{Unit.COST}"},
    )
    for stream, model, micros in found:
        tally[stream, Figure.COST, "micros"] += int(micros)
        if model is not None and micros:
            tally[stream, Figure.MODEL_COST, model] += int(micros)


def _count_drills(reader: Reader, span: Mapping[str, Any], tally: Counter[tuple[str, Figure, str]]) -> None:
    found = reader.read(
        "SELECT kind, passed, count(*) FROM drills WHERE finished_us >= :start AND finished_us < :end GROUP BY 1, 2",
        span,
    )
    for kind, passed, number in found:
        tally[FLEET, Figure.DRILLS, f"{kind} {'passed' if passed else 'failed'}"] += number
