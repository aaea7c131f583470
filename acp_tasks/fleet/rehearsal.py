"""A horizon, worked through by a whole fleet: in real time, or rehearsed on a clock that runs faster for every process.

The desk's agent works in cycles by itself; here it is only begun, watched, and judged by what it left behind.
"""

import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.agents.cases import Line, Read
from acp_tasks.agents.desk_loop import NAME
from acp_tasks.agents.horizons import STREAM, Horizon, write_policy
from acp_tasks.agents.loop import loops_of
from acp_tasks.fleet.display import Display, Picture
from acp_tasks.fleet.lived import Lived, problems
from acp_tasks.fleet.owner import let_owner_decide
from acp_tasks.fleet.process import Stack
from acp_tasks.fleet.stack import Fleet, Plan
from governance.clock import SystemClock
from governance.core.actions import State
from governance.core.drills import Kind
from governance.core.instants import iso
from governance.core.tickets import TicketState
from governance.core.trends import Span
from governance.errors import CasesInvalid
from governance.operations import audit, checkpoints, drills, rotation
from governance.operations.context import Governance
from governance.operations.reports import list_budgets, list_tickets
from governance.operations.rollups import trend
from governance.operations.status import status
from governance.policy_file import packaged_policy, read_policy

_LOOK_EVERY_S: Final = 0.5
_LISTED_MAX: Final = 10_000
_UNDER_WAY: Final = (State.QUEUED, State.RUNNING, State.DEFERRED)


def settings_for(horizon: Horizon, compress: float, now_us: int) -> dict[str, str]:
    """The environment that has a fleet live through `horizon`, `compress` times faster than the world."""
    found = {
        "ACP_HORIZON": horizon.name,
        "ACP_DRILL_EVERY_S": f"{horizon.drill_every_s(compress):g}",
        "ACP_CHECKPOINT_EVERY_S": f"{horizon.checkpoint_every * horizon.every_s / compress:g}",
    }
    if compress != 1:
        found |= {"ACP_TIME_SCALE": f"{compress:g}", "ACP_TIME_ORIGIN_US": str(now_us)}
    return found


@dataclass(frozen=True, slots=True)
class Living:
    """The horizon to live through, how much faster than the world, and how long it may take beyond that."""

    horizon: Horizon
    compress: float
    late_s: float


def live(
    lives: Living,
    plan: Plan,
    stack: Stack,
    display: Display,
    path: Path,
    lines: Iterable[Line],
    *,
    make: Callable[[], Celery],
) -> Lived:
    """Starts a fleet on the horizon's clock, lives through it, and says what it came to; `make` makes the app.

    A rehearsal has a folder of its own: its clock runs ahead of the world's, so nothing real may be kept in it.
    """
    started_s = time.monotonic()
    now_us = SystemClock().now_us()
    if lives.compress != 1:
        name = f"rehearsal-{lives.horizon.name}-{iso(now_us).replace(':', '')}"
        plan = replace(plan, state_dir=plan.state_dir / name)
        (plan.state_dir / "logs").mkdir(parents=True)
    policy = plan.state_dir / "policy.yaml"
    given = read_policy(plan.policy) if plan.policy is not None else packaged_policy()
    write_policy(lives.horizon, given, policy)
    settings = settings_for(lives.horizon, lives.compress, now_us)
    fleet = Fleet(replace(plan, policy=policy, settings=settings), stack)
    fleet.start_servers()
    fleet.start_programs()
    app = make()
    rehearsal = Rehearsal(app, bootstrap.governance(), fleet, display, lives.horizon)
    let_owner_decide(rehearsal.gov, plan.state_dir, owns_database=plan.database in ("sqlite", "postgres"))
    display.say(
        f"{lives.horizon.name}, {lives.compress:g} times faster, in {plan.state_dir}; Flower at {fleet.flower_url}"
    )
    kept, count = _keep(plan.state_dir / "cases.jsonl", path, lines, display)
    rehearsal.begin(kept, count)
    rehearsal.work(lives.horizon.seconds / lives.compress + lives.late_s)
    display.say("verifying")
    desk = importlib.import_module("acp_tasks.agents.desk")
    outbox: Path = desk.outbox_path()
    effects = len(outbox.read_bytes().splitlines()) if outbox.exists() else 0
    return rehearsal.report(compress=lives.compress, duration_s=time.monotonic() - started_s, effects=effects)


def _keep(kept: Path, path: Path, lines: Iterable[Line], display: Display) -> tuple[Path, int]:
    """The cases, where the workers find them for as long as the horizon lasts; and how many they are."""
    count = 0
    with kept.open("w", encoding="utf-8") as file:
        for line in lines:
            if isinstance(line, Read):
                file.write(line.case.model_dump_json(exclude_none=True) + "\n")
                count += 1
            else:
                display.say(f"line {line.line} of {path} skipped: {line.problem}", "yellow")
    if not count:
        raise CasesInvalid(str(path), "no line is a case")
    return kept, count


class Rehearsal:
    """One fleet, one horizon."""

    def __init__(self, app: Celery, gov: Governance, fleet: Fleet, display: Display, horizon: Horizon) -> None:
        self.app, self.gov, self.fleet, self.display, self.horizon = app, gov, fleet, display, horizon
        self._told: set[str] = set()

    def begin(self, cases: Path, count: int) -> None:
        """Cycle 1 begins now, unless this fleet has begun before."""
        loops_of(self.app)[NAME].start({"cases": str(cases), "count": count, "asked": 0})

    def work(self, deadline_s: float) -> None:
        """Until the last cycle is over and nothing is under way any more, or the deadline."""
        end_s = time.monotonic() + deadline_s
        while time.monotonic() < end_s:
            self.fleet.check()
            counts = status(self.gov, everything=False).actions
            self._show(counts)
            if self._cycle() >= self.horizon.cycles and not any(counts.get(state) for state in _UNDER_WAY):
                return
            time.sleep(_LOOK_EVERY_S)

    def report(self, *, compress: float, duration_s: float, effects: int) -> Lived:
        """What it came to, with everything that is not as it should be."""
        sessions = rotation.list_sessions(self.gov, stream=STREAM, limit=_LISTED_MAX)
        points = checkpoints.list_points(self.gov, stream=STREAM, limit=_LISTED_MAX)
        drilled = drills.list_drills(self.gov, limit=_LISTED_MAX)
        verdicts = [line.passed for line in drilled]
        expired = list_tickets(self.gov, state=TicketState.EXPIRED, limit=_LISTED_MAX)
        verified = audit.verify(self.gov)
        lived = Lived(
            horizon=self.horizon,
            compress=compress,
            cycles=self._cycle(),
            sessions=len([line for line in sessions if line.state != "ahead"]),
            closed=len([line for line in sessions if line.state == "closed"]),
            checkpoints=len(points),
            drills={
                "passed": verdicts.count(True),
                "failed": verdicts.count(False),
                "running": verdicts.count(None),
            },
            drilled=tuple(kind for kind in Kind if any(line.passed and line.kind is kind for line in drilled)),
            actions=status(self.gov, everything=False).actions,
            timed_out=len([line for line in expired if line.action_name != drills.ASK]),
            effects=effects,
            audit=verified,
            scorecard=trend(self.gov, Span(self.horizon.name), None),
            duration_s=duration_s,
            state_dir=self.fleet.plan.state_dir,
        )
        lived.problems.extend(problems(lived))
        return lived

    def _cycle(self) -> int:
        """The last cycle that is over, as far as checkpoints say."""
        point = checkpoints.last_state(self.gov, STREAM)
        return (point.cycle or 0) if point is not None else 0

    def _show(self, counts: Mapping[str, int]) -> None:
        found = rotation.list_sessions(self.gov, stream=STREAM, limit=2)
        present = next((line.id for line in found if line.state == "open"), None)
        if present is not None and present not in self._told:
            self._told.add(present)
            self.display.say(f"session {present}, cycle {self._cycle()} of {self.horizon.cycles} is saved")
        budgets = list_budgets(self.gov, session_id=present) if present is not None else []
        self.display.show(Picture({State(state): count for state, count in counts.items()}, budgets))
