"""What the fleet is doing now, in one look: switches, who is busy, actions by state, overdue requests, workers."""

from collections.abc import Mapping
from dataclasses import dataclass

from governance.core.switches import Mode, Scope, Switch
from governance.operations.context import Governance
from governance.operations.processes import list_workers
from governance.store import action_reports, switches, tickets

_SHOWN = 100
_BUSIEST = 20


@dataclass(frozen=True, slots=True)
class SwitchLine:
    """A kill switch as people see it."""

    id: str
    rule: str
    scope: Scope
    scope_id: str
    mode: Mode
    reason: str
    engaged_us: int
    engaged_by: str
    released_us: int | None
    released_by: str | None
    release_reason: str | None


@dataclass(frozen=True, slots=True)
class Busy:
    """How many actions of an agent, for a user, in a session run, and how many wait: queued, parked or deferred."""

    agent_id: str | None
    user: str | None
    stream: str
    session_id: str
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Status:
    """`busiest` are the 20 with most running; `actions` counts by state, without drills'; `overdue` counts requests
    that no escalation sweep has reached yet.
    """

    switches: tuple[SwitchLine, ...]
    busiest: tuple[Busy, ...]
    actions: Mapping[str, int]
    overdue: int
    workers: tuple[str, ...]


def status(gov: Governance, *, everything: bool) -> Status:
    """With `everything` also the switches that were released, the latest first."""
    workers = [worker.id for worker in list_workers(gov, silent_s_max=gov.limits.lease_s) if worker.alive]
    lines = []
    for row in switches.listing(gov.store, everything=everything, limit=_SHOWN):
        scope = Scope(row["scope"])
        switch = Switch(
            row["id"], scope, row["scope_id"], Mode(row["mode"]), row["reason"], row["grace_us"], row["engaged_us"]
        )
        lines.append(
            SwitchLine(
                id=switch.id,
                rule=switch.rule,
                scope=scope,
                scope_id=switch.scope_id,
                mode=switch.mode,
                reason=switch.reason,
                engaged_us=switch.engaged_us,
                engaged_by=row["engaged_by"],
                released_us=row["released_us"],
                released_by=row["released_by"],
                release_reason=row["release_reason"],
            )
        )
    return Status(
        switches=tuple(lines),
        busiest=tuple(Busy(*row) for row in action_reports.busiest(gov.store, _BUSIEST)),
        actions=action_reports.counts_by_state(gov.store),
        overdue=tickets.count_overdue(gov.store, gov.clock.now_us()),
        workers=tuple(sorted(workers)),
    )
