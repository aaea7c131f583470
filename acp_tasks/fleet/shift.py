"""A shift at the support desk: every case becomes a governed action, and the shift ends when all have settled.

Cases are enqueued by the same call that any producer makes, each under a command_id of its own, so that a second shift
with the same cases finds the first one's actions instead of making new ones.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from celery import Celery

from acp_tasks.agents.cases import BadLine, Case, Line, request_of, run_of
from acp_tasks.control.relay import relay
from acp_tasks.fleet.display import Display, Picture, refusal, style_of
from acp_tasks.fleet.stack import Fleet
from acp_tasks.fleet.watch import Watch
from acp_tasks.governed import GovernedTask
from governance.core.actions import State
from governance.core.endings import WAITS
from governance.errors import CasesInvalid, InvalidInput
from governance.operations.context import Governance
from governance.operations.reports import list_budgets
from governance.operations.scorecard import Standing, id_of, open_commands

STREAM: Final = "support"
AGENT: Final = "support-desk"
_COMMANDS: Final = "case:"
_RUNS: Final = ":agent"
_CARRIED_MAX: Final = 10_000
_LOOK_EVERY_S: Final = 0.2
# What people are told about when it happens; the rest is only counted.
_TOLD: Final = (State.DENIED, State.PARKED, State.FAILED, State.IN_DOUBT, State.DEFERRED)


@dataclass(slots=True)
class Tally:
    """Lines of the cases file: those that asked for an action, those that did not, and those that asked again."""

    read: int = 0
    skipped: int = 0
    repeated: int = 0
    carried: int = 0  # actions of an earlier shift that had not settled


class Shift:
    """One run over a file of cases; with a `model`, the desk's agent reads them and asks for what each needs."""

    def __init__(
        self,
        app: Celery,
        gov: Governance,
        fleet: Fleet,
        display: Display,
        *,
        deadline_s: float,
        model: str | None = None,
    ) -> None:
        self.app, self.gov, self.fleet, self.display = app, gov, fleet, display
        self.deadline_s = deadline_s
        self.model = model
        self.tally = Tally()
        self.watch = Watch(gov)
        self.stuck: list[Standing] = []
        self._asked: set[str] = set()
        self._shown_s = 0.0
        self._lost: set[int] = set()

    def carry_over(self) -> None:
        """Sends what earlier shifts left on its way again, and watches it as well."""
        for standing in open_commands(self.gov, _COMMANDS, _CARRIED_MAX):
            self.watch.add(standing.id)
            self.tally.carried += 1
            run = standing.command_id.rpartition(":")[0]
            run_id = id_of(self.gov, run) if run else None
            if run_id is not None:
                self.watch.follow(run_id, run)
        if self.tally.carried:
            self.display.say(f"{self.tally.carried} actions of an earlier run go on")
        relay(self.app, self.gov)

    def enqueue(self, path: Path, lines: Iterable[Line], *, strict: bool) -> None:
        """Every case as an action. A line that is no case is reported and skipped; `strict` raises CasesInvalid."""
        for line in lines:
            problem = line.problem if isinstance(line, BadLine) else self._enqueue(line.case)
            if problem is None:
                self.tally.read += 1
            elif strict:
                raise CasesInvalid(str(path), f"line {line.line}: {problem}")
            else:
                self.tally.skipped += 1
                self.display.say(f"line {line.line} of {path} skipped: {problem}", "yellow")
            if time.monotonic() - self._shown_s > _LOOK_EVERY_S:
                self._look()

    def work(self) -> bool:
        """Waits until everything has settled and every program is up; False when that takes too long."""
        end_s = time.monotonic() + self.deadline_s
        while True:
            starting = self._look()
            late = time.monotonic() > end_s
            if late or (self.watch.settled and not starting):
                # A decision may have released what had settled, and a run may have asked for more.
                self.watch.discover(AGENT)
                self._tell(self.watch.look_again())
                if late or self.watch.settled:
                    break
            time.sleep(_LOOK_EVERY_S)
        self.display.show(self._picture(), last=True)
        self.stuck = self.watch.open
        self.tally.repeated += self.watch.older(self._asked)
        return not self.stuck

    def _enqueue(self, case: Case) -> str | None:
        """What is wrong with the case, if it cannot become an action."""
        request, other = request_of(case), run_of(case, self.model or "")
        if self.model is not None:
            request, other = other, request
        # A case is worked once, whether with a model or without one.
        known = id_of(self.gov, other.command_id)
        if known is not None:
            self._follow(known, other.command_id)
            return None
        try:
            task = cast(GovernedTask, self.app.tasks[request.action])
            result = task.apply_async(
                kwargs=request.arguments,
                command_id=request.command_id,
                stream=STREAM,
                agent_id=AGENT,
                identity=case.identity,
                model=self.model,
                # Nobody waits for a result: the store says what became of an action.
                ignore_result=True,
            )
        except InvalidInput as problem:
            return str(problem)
        assert result.id is not None
        self._follow(result.id, request.command_id)
        return None

    def _follow(self, action_id: str, command_id: str) -> None:
        """Watches what a case asked for, now or in an earlier shift."""
        if action_id in self._asked:
            self.tally.repeated += 1
        self._asked.add(action_id)
        if command_id.endswith(_RUNS):
            self.watch.follow(action_id, command_id)
        else:
            self.watch.add(action_id)

    def _look(self) -> list[str]:
        """One look at programs and actions, shown; returns which programs are not up yet."""
        starting = self.fleet.check()
        for process in self.fleet.ended():
            if process.pid not in self._lost:
                self._lost.add(process.pid)
                told = f"{process.name} ended with {process.returncode}, the others go on; its log is {process.log}"
                self.display.say(told, "bold red")
        self.watch.discover(AGENT)
        self._tell(self.watch.look())
        self.display.show(self._picture(starting))
        self._shown_s = time.monotonic()
        return starting

    def _picture(self, starting: Sequence[str] = ()) -> Picture:
        sessions = self.watch.sessions()
        budgets = [line for line in list_budgets(self.gov, session_id=None) if line.scope_id in sessions]
        return Picture(self.watch.counts(), budgets, starting)

    def _tell(self, moved: list[Standing]) -> None:
        for standing in moved:
            # A run that waits has asked for something that waits, and that is told.
            if standing.state in _TOLD and standing.rule != WAITS and self.watch.is_new(standing):
                self.display.say(refusal(standing), style_of(standing.state))
