"""What the fleet is doing now, in numbers: for an autoscaler, for alerts, for a dashboard. Ages are real seconds.

*Runnable now* is what one more worker slot would take: queued, due and in the scope of no switch. The length of the
broker's lists is another number: parked, deferred and denied actions are messages there for a while, what was sent with
a delay is none, and a lost message is one no more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from governance.core.budgets import SCOPE, budget_of
from governance.core.ledger import Unit
from governance.operations.context import Governance
from governance.operations.processes import BeatLine, WorkerLine, list_beats, list_workers
from governance.operations.reports import list_budgets
from governance.operations.switches import board_now
from governance.store import metrics

_STATES = ("queued", "running", "parked", "deferred", "in_doubt")


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """The share of an open window's limit that is posted or held; of several windows of one payer the fullest."""

    scope: str
    of: str
    unit: Unit
    used_ratio: float


@dataclass(frozen=True, slots=True)
class Measures:
    """One look. `job_ages_s` says how long ago each periodic job's last tick was; None: it has never run."""

    runnable: Mapping[str, int]  # by stream
    actions: Mapping[str, int]  # by state
    oldest_runnable_s: float
    pending_approvals: int
    oldest_approval_s: float
    workers: tuple[WorkerLine, ...]
    beats: tuple[BeatLine, ...]
    budgets: tuple[BudgetUse, ...]
    alerts: Mapping[str, int]  # raised so far, by kind
    job_ages_s: Mapping[str, float | None]
    unsealed_events: int
    unpublished_actions: int


def measure(gov: Governance, jobs: Sequence[str]) -> Measures:
    """Looks at everything; `jobs` are the periodic jobs whose ticks count. Raises StoreUnavailable."""
    now_us = gov.clock.now_us()
    live = metrics.live_actions(gov.store, now_us, board_now(gov).engaged)
    runnable: Counter[str] = Counter()
    states: Counter[str] = Counter(dict.fromkeys(_STATES, 0))
    for state, stream, count, ready, _, _ in live:
        # A stream that is known keeps its line when nothing of it can run, so that a graph falls to 0 and does not end.
        runnable[stream] += ready
        if state in states:
            states[state] += count
    waiting, asked_us = metrics.pending_tickets(gov.store)
    ticks = metrics.last_ticks(gov.store, jobs)
    silent_s_max = gov.limits.lease_s
    return Measures(
        runnable=dict(runnable),
        actions=dict(states),
        oldest_runnable_s=_age_s(gov, now_us, min((line[4] for line in live if line[4]), default=None)),
        pending_approvals=waiting,
        oldest_approval_s=_age_s(gov, now_us, asked_us),
        workers=tuple(w for w in list_workers(gov, silent_s_max=silent_s_max) if w.alive and w.queues is not None),
        beats=tuple(beat for beat in list_beats(gov, silent_s_max=silent_s_max) if beat.alive),
        budgets=_budgets(gov),
        alerts=metrics.alerts_by_kind(gov.store),
        job_ages_s={job: None if at is None else _age_s(gov, now_us, at) for job, at in ticks.items()},
        unsealed_events=metrics.unsealed_events(gov.store),
        unpublished_actions=sum(line[5] for line in live),
    )


def _budgets(gov: Governance) -> tuple[BudgetUse, ...]:
    fullest: dict[tuple[str, str, Unit], float] = {}
    for line in list_budgets(gov, session_id=None):
        if not line.limit_amount:
            continue
        # A session's name ends in its window: its stream is what goes on. Of a budget the fullest account counts, there
        # may be one for everybody.
        of = budget_of(line.scope_id)[0] if line.scope == SCOPE else line.scope_id.partition("@")[0]
        key = (line.scope, of, line.unit)
        fullest[key] = max(fullest.get(key, 0.0), (line.posted + line.held) / line.limit_amount)
    return tuple(BudgetUse(*key, round(used, 6)) for key, used in sorted(fullest.items()))


def _age_s(gov: Governance, now_us: int, at_us: int | None) -> float:
    return 0.0 if at_us is None else round(max(0.0, gov.clock.real_s(now_us - at_us)), 3)
