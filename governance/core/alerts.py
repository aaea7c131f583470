"""Alerts: rules on ages, on rates of change and on what did not happen. Values in, findings out.

A finding stands while its rule finds it, and is raised once meanwhile; one that is found again after it had cleared is
raised again. What can happen once only in its window (`once`) is never raised twice.

Spans are in microseconds of the fleet's clock. A limit of 0 turns its rule off.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Final

from governance.core.budgets import parts_of
from governance.core.instants import SECOND_US, iso


class AlertKind(StrEnum):
    APPROVAL_AGE = "approval.age"
    BUDGET_BURN = "budget.burn"
    BUDGET_FORECAST = "budget.forecast"
    BUDGET_EXHAUSTED = "budget.exhausted"
    MODEL_DENIED = "model.denied"
    DENIAL_RATE = "denial.rate"
    RECOVERY_RATE = "recovery.rate"
    BEAT_SILENT = "beat.silent"
    SCAN_MISSED = "scan.missed"
    DRILL_FAILED = "drill.failed"
    DRILL_OVERDUE = "drill.overdue"
    USAGE_SUMMARY = "usage.summary"


#: The scans whose silence nobody else would notice.
SCANS: Final = ("acp.recovery", "acp.escalation", "acp.switches", "acp.relay", "acp.rotation", "acp.sealing")
#: The one of them that looks at workers, of which there is at least the one that runs it.
_LOOKS_AT_WORKERS: Final = "acp.recovery"
#: Of its window, before a burn rate says anything.
_ELAPSED_MIN: Final = Fraction(1, 10)
#: A rate below it counts as this one: three times nothing is nothing.
_RATE_MIN: Final = Fraction(1, 50)


def runbook(kind: str) -> str:
    """Where it is written what an alert of that kind means and what to do."""
    return f"docs/operations.md#alert-{re.sub('[._]', '-', kind)}"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is worth a person's attention. Seconds are real seconds; 0 turns a rule off."""

    approval_age_s: float = 900.0
    budget_percents: tuple[int, ...] = (50, 80, 100)
    forecast_percent: int = 25
    rate_factor: float = 3.0
    denials_min: int = 10
    recoveries_min: int = 5
    exhausted_min: int = 1
    model_denials_min: int = 1
    beat_s: float = 120.0
    scan_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found. `key` says what it is about; the payload is JSON."""

    key: str
    kind: AlertKind
    payload: Mapping[str, object] = field(default_factory=dict)
    once: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A pending approval."""

    ticket_id: str
    action_id: str
    rule: str
    requested_us: int


@dataclass(frozen=True, slots=True)
class Burn:
    """A limited budget in its open window.

    A budget by identity names itself and whose account it is, and has `levels` of its own, in percent.
    """

    account_id: str
    unit: str
    limit: int
    posted: int
    held: int
    start_us: int
    end_us: int
    budget: str | None = None
    who: str | None = None
    levels: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """`part` of `whole` things."""

    part: int
    whole: int

    @property
    def rate(self) -> Fraction:
        return Fraction(self.part, self.whole) if self.whole else Fraction(0)

    @property
    def percent(self) -> float:
        return round(float(self.rate) * 100, 1)


@dataclass(frozen=True, slots=True)
class Refused:
    """So many refusals for one budget, or of one model, of the same caller; `who` None: one without identity."""

    of: str
    who: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Run:
    """The last time that a job came to its end, and how much it looked at, if it says so."""

    finished_us: int
    looked: int | None


def approval_age(oldest: Request | None, pending: int, now_us: int, limit_us: int) -> Finding | None:
    """The request that has waited longest has waited for too long."""
    if oldest is None or not limit_us or now_us - oldest.requested_us < limit_us:
        return None
    return Finding(
        "approval-age",
        AlertKind.APPROVAL_AGE,
        {
            "ticket": oldest.ticket_id,
            "action": oldest.action_id,
            "rule": oldest.rule,
            "requested": iso(oldest.requested_us),
            "age_s": _seconds(now_us - oldest.requested_us),
            "pending": pending,
        },
    )


def burn_key(account_id: str, percent: int) -> str:
    return f"budget-burn:{account_id}:{percent}"


def budget_burn(burns: Iterable[Burn], percents: Sequence[int], raised: frozenset[str]) -> list[Finding]:
    """The highest level that each budget has reached, posted and held together; `raised` are the keys raised before.

    A budget that falls back, because what was held is given back, says nothing: the higher level has been told.
    """
    found = []
    for burn in burns:
        levels = percents if burn.levels is None else burn.levels
        reached = [level for level in levels if (burn.posted + burn.held) * 100 >= burn.limit * level]
        if not reached or any(burn_key(burn.account_id, level) in raised for level in levels if level > max(reached)):
            continue
        payload = {**_budget(burn), "percent": max(reached)}
        found.append(Finding(burn_key(burn.account_id, max(reached)), AlertKind.BUDGET_BURN, payload, once=True))
    return found


def budget_forecast(burns: Iterable[Burn], percent: int, now_us: int) -> list[Finding]:
    """Budgets of which `percent` is posted, and all will be before the window's end if it goes on like this.

    Nothing is said in the first tenth of a window, nor of a budget that is used up: that is no forecast any more.
    """
    found = []
    for burn in burns:
        elapsed_us = now_us - burn.start_us
        if not percent or burn.posted * 100 < burn.limit * percent or burn.posted >= burn.limit:
            continue
        if elapsed_us < _ELAPSED_MIN * (burn.end_us - burn.start_us):
            continue
        exhausted_us = burn.start_us + elapsed_us * burn.limit // burn.posted
        if exhausted_us < burn.end_us:
            payload = {**_budget(burn), "exhausted": iso(exhausted_us)}
            found.append(Finding(f"budget-forecast:{burn.account_id}", AlertKind.BUDGET_FORECAST, payload, once=True))
    return found


def budgets_exhausted(recent: Sequence[Refused], at_least: int) -> Finding | None:
    """Budgets had no room in the last hour, whatever became of what asked: it waits or is parked as well as denied."""
    return _refused("budget-exhausted", AlertKind.BUDGET_EXHAUSTED, "budget", recent, at_least)


def models_denied(recent: Sequence[Refused], at_least: int) -> Finding | None:
    """Models were refused in the last hour, to actions or to calls inside them."""
    return _refused("model-denied", AlertKind.MODEL_DENIED, "model", recent, at_least)


def denial_rates(
    recent: Mapping[str, Share], before: Mapping[str, Share], *, at_least: int, factor: float
) -> list[Finding]:
    """Streams that deny far more of what ends than they did: of the last hour, against the week before it.

    A stream with fewer than `at_least` ends in that week has no baseline, and nothing is said of it.
    """
    return [
        Finding(f"denial-rate:{stream}", AlertKind.DENIAL_RATE, {"stream": stream, **_shares(share, before[stream])})
        for stream, share in sorted(recent.items())
        if stream in before and before[stream].whole >= at_least and _jumped(share, before[stream], at_least, factor)
    ]


def recovery_rate(recent: Share, before: Share, *, at_least: int, factor: float) -> Finding | None:
    """Far more attempts vanish than before; without a baseline, more than nearly none."""
    if not _jumped(recent, before, at_least, factor):
        return None
    return Finding("recovery-rate", AlertKind.RECOVERY_RATE, _shares(recent, before))


def beat_silent(latest_us: int | None, watched_since_us: int, now_us: int, limit_us: int) -> Finding | None:
    """No tick was claimed for too long, while somebody watched."""
    since_us = max(watched_since_us, latest_us or 0)
    if not limit_us or now_us - since_us < limit_us:
        return None
    return Finding(
        "beat-silent",
        AlertKind.BEAT_SILENT,
        {"last_tick": iso(latest_us) if latest_us is not None else None, "silent_s": _seconds(now_us - since_us)},
    )


def watched_since_us(finished_us: Iterable[int], now_us: int, gap_us: int) -> int:
    """Since when there was never a gap of more than `gap_us` between these instants, and to now."""
    since_us = now_us
    for instant in sorted(finished_us, reverse=True):
        if since_us - instant > gap_us:
            break
        since_us = instant
    return since_us


def missed_scans(
    runs: Mapping[str, Run], *, live_workers: int, watched_since_us: int, now_us: int, limit_us: int
) -> list[Finding]:
    """Scans that did not come to an end for too long, while somebody watched, and the one that saw no worker."""
    found = []
    for job in SCANS if limit_us else ():
        run = runs.get(job)
        if now_us - max(watched_since_us, run.finished_us if run else 0) > limit_us:
            why = "it has not come to an end"
        elif run is not None and run.looked == 0 and live_workers and job == _LOOKS_AT_WORKERS:
            why = f"it looked at no worker, and there are {live_workers}"
        else:
            continue
        payload = {"job": job, "why": why, "last_finished": iso(run.finished_us) if run else None}
        found.append(Finding(f"scan-missed:{job}", AlertKind.SCAN_MISSED, payload))
    return found


def _refused(key: str, kind: AlertKind, named: str, recent: Sequence[Refused], at_least: int) -> Finding | None:
    """The budget or model that was refused most often is named, and whom it was refused to most often."""
    total = sum(refused.count for refused in recent)
    if not at_least or total < at_least:
        return None
    of_each: Counter[str] = Counter()
    for refused in recent:
        of_each[refused.of] += refused.count
    of = min(of_each, key=lambda name: (-of_each[name], name))
    most = min((one for one in recent if one.of == of), key=lambda one: (-one.count, one.who or ""))
    payload = {"count": total, named: of, f"{named}_count": of_each[of], "who": most.who, "who_count": most.count}
    return Finding(key, kind, payload)


def _jumped(recent: Share, before: Share, at_least: int, factor: float) -> bool:
    """Whether a rate is `factor` times the one before, or half-way from there to all."""
    if not at_least or recent.part < at_least:
        return False
    base = max(before.rate, _RATE_MIN)
    return recent.rate >= min(base * Fraction(factor), (1 + base) / 2)


def _shares(recent: Share, before: Share) -> Mapping[str, object]:
    return {
        "count": recent.part,
        "of": recent.whole,
        "percent": recent.percent,
        "baseline_of": before.whole,
        "baseline_percent": before.percent,
    }


def _budget(burn: Burn) -> Mapping[str, object]:
    return {
        "account": burn.account_id,
        "unit": burn.unit,
        "limit": burn.limit,
        "posted": burn.posted,
        "held": burn.held,
        "window_end": iso(burn.end_us),
        **({"budget": burn.budget, "who": burn.who} if burn.budget is not None else {}),
        **(parts_of(burn.who) if burn.who is not None else {}),
    }


def _seconds(span_us: int) -> int:
    return span_us // SECOND_US
