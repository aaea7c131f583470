"""What the alert rules look at, and the alerts that stand until their finding is gone."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, RowMapping, select

from governance.core.actions import TERMINAL
from governance.core.alerts import Burn, Refused, Request, Run
from governance.core.budgets import budget_of
from governance.core.events import MODEL_ACCESS_DENIED, TOKEN_BUDGET_EXHAUSTED, Event
from governance.store.accounts import ACCOUNTS
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in, payload_field
from governance.store.schema.trail import alerts

_TERMINAL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))
_PAGE = 500
# The parts of an identity, as the trail names them.
_WHO = ("user", "team", "org", "agent")


def oldest_request(store: Reader) -> Request | None:
    """The pending request that has waited longest (ix_tickets_oldest); never a drill's."""
    found = store.read(
        """SELECT t.id, t.action_id, t.rule, t.requested_us FROM tickets t JOIN actions a ON a.id = t.action_id
            WHERE t.state = 'pending' AND a.name NOT LIKE 'acp.drill.%' ORDER BY t.requested_us LIMIT 1""",
        {},
    )
    return Request(*found[0]) if found else None


def count_pending(store: Reader) -> int:
    return int(store.read("SELECT count(*) FROM tickets WHERE state = 'pending'", {})[0][0])


def open_budgets(store: Reader, now_us: int) -> list[Burn]:
    """Limited budgets of open windows of which something is used (ix_accounts_window_end_us); never a drill's."""
    return _burns(store, "window_end_us > :now AND window_start_us <= :now", {"now": now_us})


def closed_budgets(store: Reader, since_us: int, now_us: int, percent: int) -> list[Burn]:
    """Limited budgets of windows that ended after `since_us`, of which at least `percent` are used."""
    return _burns(
        store,
        "window_end_us > :since AND window_end_us <= :now AND (posted + held) * 100 >= limit_amount * :percent",
        {"since": since_us, "now": now_us, "percent": percent},
    )


def _burns(store: Reader, where: str, values: Mapping[str, int]) -> list[Burn]:
    found = store.read(
        f"""SELECT id, unit, limit_amount, posted, held, window_start_us, window_end_us,
                CASE WHEN scope = 'budget' THEN scope_id END FROM {ACCOUNTS} c
            WHERE {where} AND limit_amount > 0 AND posted + held > 0
                AND NOT (scope = 'session' AND scope_id IN (SELECT session_id FROM drills)) ORDER BY id""",
        dict(values),
    )
    return [Burn(*row[:7], *(budget_of(row[7]) if row[7] is not None else (None, None))) for row in found]


def last_look_us(store: Reader, job: str) -> int | None:
    """When the last tick of a job that came to its end was claimed."""
    found = store.read(
        "SELECT max(claimed_us) FROM ticks WHERE job = :job AND finished_us IS NOT NULL",
        {"job": job},
    )
    return None if found[0][0] is None else int(found[0][0])


def recent_ends(store: Reader, since_us: int) -> Mapping[str, tuple[int, int, int]]:
    """By stream: (ended, denied, reclaimed) since then (ix_events_at_us), drills left out."""
    found = store.read(
        f"""SELECT s.stream, sum(CASE WHEN e.state IN ({_TERMINAL}) THEN 1 ELSE 0 END),
                sum(CASE WHEN e.state = 'denied' THEN 1 ELSE 0 END),
                sum(CASE WHEN e.kind = 'action.reclaimed' THEN 1 ELSE 0 END)
            FROM events e JOIN sessions s ON s.id = e.session_id
            WHERE e.at_us >= :since AND (e.state IN ({_TERMINAL}) OR e.kind = 'action.reclaimed')
                AND e.session_id NOT IN (SELECT session_id FROM drills) GROUP BY s.stream""",
        {"since": since_us},
    )
    return {str(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in found}


def recent_refusals(store: Store, since_us: int) -> tuple[list[Refused], list[Refused]]:
    """Of budgets and of models, how often each was refused to whom since then (ix_events_at_us), drills left out.

    A session's own budget is named after its stream.
    """
    field = payload_field(store)
    who = ", ".join(f"{field}'{part}'" for part in _WHO)
    found = store.read(
        f"""SELECT e.kind, count(*),
                CASE WHEN e.kind = '{MODEL_ACCESS_DENIED}' THEN {field}'model'
                    ELSE coalesce({field}'budget', 'session:' || s.stream) END, {who}
            FROM events e JOIN sessions s ON s.id = e.session_id
            WHERE e.at_us >= :since AND e.kind IN ('{TOKEN_BUDGET_EXHAUSTED}', '{MODEL_ACCESS_DENIED}')
                AND e.session_id NOT IN (SELECT session_id FROM drills) GROUP BY 1, 3, 4, 5, 6, 7""",
        {"since": since_us},
    )
    refused: dict[str, list[Refused]] = {TOKEN_BUDGET_EXHAUSTED: [], MODEL_ACCESS_DENIED: []}
    for kind, number, of, *parts in found:
        refused[kind].append(Refused(str(of), _named(parts), int(number)))
    return refused[TOKEN_BUDGET_EXHAUSTED], refused[MODEL_ACCESS_DENIED]


def _named(parts: Sequence[str | None]) -> str | None:
    return ", ".join(f"{part} {name}" for part, name in zip(_WHO, parts, strict=True) if name) or None


def latest_tick_us(store: Reader, until_us: int) -> int | None:
    """When the last tick of any job was claimed, as far as `until_us` (ix_ticks_claimed_us)."""
    # A sender's turn is kept among the ticks, dated to its end.
    found = store.read(
        """SELECT claimed_us FROM ticks WHERE job NOT LIKE '%.turn' AND claimed_us <= :until
            ORDER BY claimed_us DESC LIMIT 1""",
        {"until": until_us},
    )
    return int(found[0][0]) if found else None


def finished_since(store: Reader, job: str, since_us: int) -> list[int]:
    """When ticks of a job came to their end, of those claimed since then."""
    found = store.read(
        "SELECT finished_us FROM ticks WHERE claimed_us >= :since AND job = :job AND finished_us IS NOT NULL",
        {"job": job, "since": since_us},
    )
    return [int(row[0]) for row in found]


def last_runs(store: Reader, since_us: int) -> Mapping[str, Run]:
    """By job, the last tick that came to its end, of those claimed since then (ix_ticks_claimed_us)."""
    found = store.read(
        """SELECT job, finished_us, looked FROM ticks WHERE claimed_us >= :since AND finished_us IS NOT NULL
            ORDER BY finished_us""",
        {"since": since_us},
    )
    return {str(row[0]): Run(int(row[1]), None if row[2] is None else int(row[2])) for row in found}


def known(store: Reader, alert_ids: Sequence[str]) -> frozenset[str]:
    """Those of these ids that were raised before."""
    found: set[str] = set()
    for start in range(0, len(alert_ids), _PAGE):
        page = {f"id{number}": id_ for number, id_ in enumerate(alert_ids[start : start + _PAGE])}
        listed = ", ".join(f":{name}" for name in page)
        found |= {str(row[0]) for row in store.read(f"SELECT id FROM alerts WHERE id IN ({listed})", page)}
    return frozenset(found)


def latest_id(store: Reader, prefix: str) -> str | None:
    """The last, by id, of the alerts whose ids begin like that."""
    found = store.read(
        "SELECT max(id) FROM alerts WHERE substr(id, 1, :length) = :prefix", {"prefix": prefix, "length": len(prefix)}
    )
    return None if found[0][0] is None else str(found[0][0])


def standing(store: Reader) -> Mapping[str, str]:
    """By finding, the alert that stands."""
    found = store.read("SELECT finding, id FROM alerts WHERE finding IS NOT NULL AND cleared_us IS NULL", {})
    return {str(row[0]): str(row[1]) for row in found}


def clear(connection: Connection, finding: str, event: Event) -> bool:
    """The finding is gone, with `event`; False when somebody else said so."""
    cleared = rows(
        connection,
        "UPDATE alerts SET cleared_us = :now WHERE finding = :finding AND cleared_us IS NULL RETURNING id",
        {"finding": finding, "now": event.at_us},
    )
    if cleared:
        append_in(connection, event)
    return bool(cleared)


def listing(store: Store, *, standing_only: bool, limit: int) -> list[RowMapping]:
    """The latest first."""
    query = select(alerts).order_by(alerts.c.at_us.desc(), alerts.c.id).limit(limit)
    if standing_only:
        query = query.where(alerts.c.finding.is_not(None), alerts.c.cleared_us.is_(None))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def unpushed(store: Store, since_us: int, limit: int) -> list[RowMapping]:
    """Alerts raised since then that apprise has not passed on, the oldest first."""
    query = select(alerts).where(alerts.c.pushed_us.is_(None), alerts.c.at_us >= since_us)
    with store.statement() as connection:
        return list(connection.execute(query.order_by(alerts.c.at_us, alerts.c.id).limit(limit)).mappings())


def pushed(store: Store, alert_id: str, now_us: int) -> None:
    store.run("UPDATE alerts SET pushed_us = :now WHERE id = :id", {"id": alert_id, "now": now_us})
