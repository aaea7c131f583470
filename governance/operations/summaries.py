"""The usage summary that beat tells: what was used in a week that is over, and which limits do not fit it.

It is told where everything is told that wants a person's attention: by an alert, which the webhook and apprise pass on,
and by an event in the trail of the fleet itself.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from governance.core.alerts import AlertKind
from governance.core.events import Event
from governance.core.instants import iso
from governance.core.ledger import Unit
from governance.core.money import usd
from governance.core.usage import By, Fit, Judged
from governance.core.windows import Period, Window, period_at
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.notify import alert
from governance.operations.sessions import in_force
from governance.operations.usage import limits_between
from governance.store import alerts, drills, usage

#: Of the limits of one fit, the first ones are named; how many there are is always said.
NAMED_MAX: Final = 20
_ZONE: Final = "UTC"


def summarize(gov: Governance, period: Period) -> tuple[str, ...]:
    """Tells of every day, week or month (UTC) that is over and was not told yet; the alerts' ids, oldest first.

    Each is told once, whoever comes first. A fleet that never told begins with the last one. Raises StoreUnavailable.
    """
    return tuple(alert_id for window in _untold(gov, period) if (alert_id := _tell(gov, period, window)) is not None)


def _untold(gov: Governance, period: Period) -> list[Window]:
    """Oldest first."""
    began_us = drills.fleet_began_us(gov.store)
    last_id = alerts.latest_id(gov.store, _id(period, None))
    found: list[Window] = []
    for window in _before(period, gov.clock.now_us()):
        known = last_id is not None and _id(period, window) <= last_id
        if began_us is None or window.end_us <= began_us or known or (found and last_id is None):
            break
        found.append(window)
    return found[::-1]


def _before(period: Period, now_us: int) -> Iterator[Window]:
    """The windows that are over, the latest first."""
    window = period_at(period, _ZONE, now_us)
    while window.start_us > 0:
        window = period_at(period, _ZONE, window.start_us - 1)
        yield window


def _id(period: Period, window: Window | None) -> str:
    """In the order of time; without a window, how all of them begin."""
    return f"usage-summary:{period}:" + (iso(window.start_us) if window is not None else "")


def _tell(gov: Governance, period: Period, window: Window) -> str | None:
    posted = usage.posted(gov.store, By.STREAM, window.start_us, window.end_us)
    actions, tokens, micros = (sum(int(row[column]) for row in posted) for column in (1, 2, 3))
    judged = limits_between(gov, window.start_us, window.end_us)
    payload: dict[str, object] = {
        "period": period,
        "since": iso(window.start_us),
        "until": iso(window.end_us),
        "actions": actions,
        "tokens": tokens,
        "cost_usd": usd(micros).removeprefix("$"),
        "limits": len(judged),
    }
    for name, fit in (("too_tight", Fit.TIGHT), ("too_loose", Fit.LOOSE), ("unused", Fit.UNUSED)):
        those = [one for one in judged if one.fit is fit]
        payload |= {name: len(those), f"{name}_limits": _named(those)}
    now_us = gov.clock.now_us()
    session = in_force(gov, CONTROL_STREAM, now_us).session
    event = Event(session.id, "usage.summary", "governance", now_us, payload=payload)
    alert_id = _id(period, window)
    return alert_id if alert(gov, alert_id, AlertKind.USAGE_SUMMARY, payload, also=event) else None


def _named(judged: Sequence[Judged]) -> list[str]:
    named = []
    for one in judged[:NAMED_MAX]:
        peak, limit = _amount(one.unit, one.peak), _amount(one.unit, one.limit)
        named.append(f"{one.budget} {one.unit}: at most {peak} of {limit}; {one.advice}")
    return named


def _amount(unit: Unit, value: int) -> str:
    return usd(value) if unit is Unit.COST else str(value)
