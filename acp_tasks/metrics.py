"""The measures as Prometheus knows them: a collector that reads the database when it is asked, and keeps nothing.

One process of a fleet serves them. Counting in the workers would need a file for each of their children, and would be
wrong as soon as one dies.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from acp_tasks.control import JOBS
from acp_tasks.control_queue import works_for_agents, works_for_beat
from governance.errors import StoreUnavailable
from governance.operations.context import Governance
from governance.operations.metrics import Measures, measure


class FleetCollector(Collector):
    """Measures at every scrape. While the database is away it says `acp_database_up 0` and nothing else."""

    def __init__(self, gov: Governance) -> None:
        self._gov = gov

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking would be a first scrape, before anybody wants one."""
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            measures = measure(self._gov, tuple(JOBS))
        except StoreUnavailable:
            yield _gauge("acp_database_up", "Whether the database answers.", 0)
            return
        yield _gauge("acp_database_up", "Whether the database answers.", 1)
        yield from families(measures)


def registry(gov: Governance) -> CollectorRegistry:
    """A registry with the fleet's metrics only."""
    made = CollectorRegistry(auto_describe=False)
    made.register(FleetCollector(gov))
    return made


def exposition(gov: Governance) -> str:
    """One scrape's answer, as OpenMetrics text."""
    answer: bytes = generate_latest(registry(gov))  # type: ignore[no-untyped-call]
    return answer.decode()


def families(seen: Measures) -> Iterator[Metric]:
    """Every metric of one look; docs/operations.md says what each is for."""
    agents = [worker for worker in seen.workers if works_for_agents(worker)]
    yield _by("acp_runnable_actions", "Actions that a free worker slot would take now.", "stream", seen.runnable)
    yield _by("acp_actions", "Actions that have not ended, by state.", "state", seen.actions)
    yield _gauge("acp_oldest_runnable_age_seconds", "How long the oldest of them waits.", seen.oldest_runnable_s)
    yield _gauge("acp_pending_approvals", "Requests that wait for a person.", seen.pending_approvals)
    yield _gauge("acp_oldest_approval_age_seconds", "How long the oldest request waits.", seen.oldest_approval_s)
    yield _gauge("acp_workers", "Live workers that take agents' actions.", len(agents))
    yield _gauge("acp_worker_slots", "Actions that these run at a time.", sum(worker.slots or 0 for worker in agents))
    yield _gauge("acp_control_workers", "Live workers that take beat's jobs.", len(works_for_beat(seen.workers)))
    yield _gauge("acp_beats", "Live schedulers; each tick is done once, however many there are.", len(seen.beats))
    used = GaugeMetricFamily(
        "acp_budget_used_ratio",
        "Share of an open window's limit posted or held.",
        labels=["scope", "of", "unit"],
    )
    for budget in seen.budgets:
        used.add_metric([budget.scope, budget.of, str(budget.unit)], budget.used_ratio)
    yield used
    alerts = CounterMetricFamily("acp_alerts_raised", "Alerts raised, by kind.", labels=["kind"])
    for kind, count in seen.alerts.items():
        alerts.add_metric([kind], count)
    yield alerts
    ages = {job: age_s for job, age_s in seen.job_ages_s.items() if age_s is not None}
    yield _by("acp_tick_age_seconds", "How long ago each periodic job's last tick was.", "job", ages)
    if ages:
        yield _gauge("acp_beat_age_seconds", "How long ago the latest tick of all was.", min(ages.values()))
    yield _gauge("acp_unsealed_events", "Events that cannot be replayed yet.", seen.unsealed_events)
    yield _gauge("acp_unpublished_actions", "Actions whose message the relay has to send.", seen.unpublished_actions)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
