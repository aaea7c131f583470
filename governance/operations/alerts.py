"""Alert rules over what is there now: gather, decide (`governance.core.alerts`), raise what is new, clear what is gone.

An alert is raised by `governance.operations.notify.alert`: a row, an event in the fleet's own session, a notice.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from governance.core.alerts import (
    AlertKind,
    Burn,
    Finding,
    Share,
    Thresholds,
    approval_age,
    beat_silent,
    budget_burn,
    budget_forecast,
    budgets_exhausted,
    burn_key,
    denial_rates,
    missed_scans,
    models_denied,
    recovery_rate,
    watched_since_us,
)
from governance.core.events import BUDGET_THRESHOLD, Event
from governance.core.instants import iso
from governance.core.rollups import HOUR_US, Figure, count, hour_of
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.notify import Turn, alert, end_turn, take_turn
from governance.operations.sessions import in_force
from governance.operations.switches import board_now
from governance.store import alerts, rollups, workers
from governance.store.notices import PUSH_TURN

#: Its own ticks tell since when somebody has watched without a break.
JOB: Final = "acp.alerts"
#: What the last hour is compared with: so many hours of roll-ups before it.
BASELINE_HOURS: Final = 7 * 24
# Like a notice: whoever did not hear of it for a day has found out.
_OLD_S: Final = 24 * 3600.0
_PUSHED_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Watched:
    """What a look came to: the ids of the alerts it raised, and the findings that are gone."""

    raised: tuple[str, ...]
    cleared: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert in a list; `cleared_us` is None while it stands, or when it is of a kind that never clears."""

    id: str
    kind: str
    at_us: int
    cleared_us: int | None
    standing: bool
    details: Mapping[str, object]


def watch(gov: Governance, thresholds: Thresholds) -> Watched:
    """One look by every rule but beat's own silence, which whoever runs this has just broken."""
    now_us = gov.clock.now_us()
    found = {finding.key: finding for finding in _findings(gov, thresholds, now_us)}
    standing = alerts.standing(gov.store)
    new = [finding for key, finding in found.items() if key not in standing]
    raised = [alert_id for finding in new if (alert_id := _raise(gov, finding, now_us)) is not None]
    gone = [key for key in standing if key not in found]
    return Watched(tuple(raised), tuple(key for key in gone if _clear(gov, key, standing[key], now_us)))


def beat_is_silent(gov: Governance, thresholds: Thresholds, since_us: int) -> bool:
    """Whether no job of beat's was begun for too long, nor since `since_us`; raises the alert. Cheap.

    Asked by those who do not need beat to live: the workers' hearts.
    """
    now_us = gov.clock.now_us()
    limit_us = gov.clock.span_us(thresholds.beat_s)
    # A tick from further ahead is of a clock that has been put back since.
    latest_us = alerts.latest_tick_us(gov.store, now_us + limit_us)
    finding = beat_silent(latest_us, since_us, now_us, limit_us)
    if finding is not None and finding.key not in alerts.standing(gov.store):
        _raise(gov, finding, now_us)
    return finding is not None


def list_alerts(gov: Governance, *, standing_only: bool, limit: int) -> list[AlertLine]:
    """The latest first."""
    return [
        AlertLine(
            id=row["id"],
            kind=row["kind"],
            at_us=row["at_us"],
            cleared_us=row["cleared_us"],
            standing=row["finding"] is not None and row["cleared_us"] is None,
            details=json.loads(row["payload"]),
        )
        for row in alerts.listing(gov.store, standing_only=standing_only, limit=limit)
    ]


def unpushed(gov: Governance) -> list[AlertLine]:
    """What apprise has not passed on yet, the oldest first, nothing older than a real day."""
    since_us = gov.clock.now_us() - gov.clock.span_us(_OLD_S)
    return [
        AlertLine(row["id"], row["kind"], row["at_us"], row["cleared_us"], False, json.loads(row["payload"]))
        for row in alerts.unpushed(gov.store, since_us, _PUSHED_MAX)
    ]


def pushed(gov: Governance, alert_id: str) -> None:
    """Somebody was told by apprise."""
    alerts.pushed(gov.store, alert_id, gov.clock.now_us())


def take_push_turn(gov: Governance, real_s: float) -> Turn | None:
    """The right to push, for at most `real_s` real seconds; None while somebody else has it."""
    return take_turn(gov, real_s, PUSH_TURN)


def end_push_turn(gov: Governance, turn: Turn) -> None:
    end_turn(gov, turn, rest_s=0)


def _findings(gov: Governance, thresholds: Thresholds, now_us: int) -> list[Finding]:
    age = approval_age(
        alerts.oldest_request(gov.store),
        alerts.count_pending(gov.store),
        now_us,
        gov.clock.span_us(thresholds.approval_age_s),
    )
    return [
        *([age] if age is not None else []),
        *_of_budgets(gov, thresholds, now_us),
        *_of_rates(gov, thresholds, now_us),
        *_of_refusals(gov, thresholds, now_us),
        *_of_scans(gov, thresholds, now_us),
    ]


def _of_budgets(gov: Governance, thresholds: Thresholds, now_us: int) -> list[Finding]:
    soft = {budget.id: budget.soft for budget in board_now(gov).book.in_force(gov.policy.budgets)}

    def with_levels(burns: list[Burn]) -> list[Burn]:
        return [replace(burn, levels=(*soft[burn.budget], 100)) if burn.budget in soft else burn for burn in burns]

    percents = thresholds.budget_percents
    least = min((level for levels in (percents, *soft.values()) for level in levels), default=100)
    burns = with_levels(alerts.open_budgets(gov.store, now_us))
    closed = with_levels(alerts.closed_budgets(gov.store, _unseen_since_us(gov, now_us), now_us, least))
    raised = alerts.known(gov.store, _burn_keys([*burns, *closed], percents))
    return [
        *budget_burn(burns, percents, raised),
        # Told once and gone: nobody can do anything about a window that is over.
        *(finding for finding in budget_burn(closed, percents, raised) if finding.key not in raised),
        *budget_forecast(burns, thresholds.forecast_percent, now_us),
    ]


def _unseen_since_us(gov: Governance, now_us: int) -> int:
    """Windows that ended after this may have come to a level since the last look: before their end, or afterwards
    by attempts that began in them.
    """
    last_us = alerts.last_look_us(gov.store, JOB)
    if last_us is None:
        # Nobody has looked, or not for so long that it is forgotten: as far back as rates are compared.
        last_us = now_us - BASELINE_HOURS * HOUR_US
    return min(last_us, now_us) - gov.clock.span_us(gov.limits.time_limit_s)


def _burn_keys(burns: list[Burn], percents: tuple[int, ...]) -> list[str]:
    of_each = [(burn, percents if burn.levels is None else burn.levels) for burn in burns]
    near = [
        (burn, levels)
        for burn, levels in of_each
        if (burn.posted + burn.held) * 100 >= burn.limit * min(levels, default=0)
    ]
    return [burn_key(burn.account_id, level) for burn, levels in near for level in levels]


def _of_rates(gov: Governance, thresholds: Thresholds, now_us: int) -> list[Finding]:
    """The last hour of the fleet's clock, against the roll-ups of the week before it."""
    since_us = now_us - HOUR_US
    until_us = hour_of(since_us)
    recent = alerts.recent_ends(gov.store, since_us)
    before = rollups.ends_by_stream(gov.store, until_us - BASELINE_HOURS * HOUR_US, until_us)
    rates = denial_rates(
        {stream: Share(denied, ended) for stream, (ended, denied, _) in recent.items()},
        {
            stream: Share(count(sums, Figure.ENDED, "denied"), count(sums, Figure.ENDED))
            for stream, sums in before.items()
        },
        at_least=thresholds.denials_min,
        factor=thresholds.rate_factor,
    )
    reclaimed = sum(vanished for _, _, vanished in recent.values())
    all_before: Counter[tuple[str, str]] = Counter()
    for sums in before.values():
        all_before.update(sums)
    vanished_before = count(all_before, Figure.RECLAIMED)
    recovered = recovery_rate(
        Share(reclaimed, reclaimed + sum(ended for ended, _, _ in recent.values())),
        Share(vanished_before, vanished_before + count(all_before, Figure.ENDED)),
        at_least=thresholds.recoveries_min,
        factor=thresholds.rate_factor,
    )
    return [*rates, *([recovered] if recovered is not None else [])]


def _of_refusals(gov: Governance, thresholds: Thresholds, now_us: int) -> list[Finding]:
    """What budgets and models refused in the last hour of the fleet's clock."""
    exhausted, denied = alerts.recent_refusals(gov.store, now_us - HOUR_US)
    found = (
        budgets_exhausted(exhausted, thresholds.exhausted_min),
        models_denied(denied, thresholds.model_denials_min),
    )
    return [finding for finding in found if finding is not None]


def _of_scans(gov: Governance, thresholds: Thresholds, now_us: int) -> list[Finding]:
    limit_us = gov.clock.span_us(thresholds.scan_s)
    since_us = now_us - 2 * limit_us
    watched = alerts.finished_since(gov.store, JOB, since_us)
    alive_us = now_us - gov.clock.span_us(gov.limits.lease_s)
    return missed_scans(
        alerts.last_runs(gov.store, since_us),
        live_workers=len(workers.heard_of(gov.store, alive_us)),
        # After a longer break of the watch nothing that is missing from before it is anybody's fault.
        watched_since_us=watched_since_us(watched, now_us, limit_us),
        now_us=now_us,
        limit_us=limit_us,
    )


def _raise(gov: Governance, finding: Finding, now_us: int) -> str | None:
    """The id of the new alert; None when it was raised before."""
    alert_id = finding.key if finding.once else f"{finding.key}@{iso(now_us)}"
    also = None
    if finding.kind is AlertKind.BUDGET_BURN and "budget" in finding.payload:
        # A budget by identity has thresholds of its own, and each crossing is in the trail.
        session = in_force(gov, CONTROL_STREAM, now_us).session
        also = Event(session.id, BUDGET_THRESHOLD, "governance", now_us, payload=finding.payload)
    new = alert(gov, alert_id, finding.kind, finding.payload, finding=finding.key, also=also)
    return alert_id if new else None


def _clear(gov: Governance, key: str, alert_id: str, now_us: int) -> bool:
    session = in_force(gov, CONTROL_STREAM, now_us).session
    event = Event(session.id, "alert.cleared", "governance", now_us, payload={"alert": alert_id, "finding": key})
    with gov.store.transaction() as connection:
        return alerts.clear(connection, key, event)
