"""An agent that works in cycles: each cycle is a governed action of the agent's stream, and asks for the next one.

    app = Celery("shop", task_cls="acp_tasks:GovernedTask")
    desk = AgentLoop(app, name="desk.cycle", stream="support", step=work, every_s=300, cycles=12)
    desk.start({"open": []})

`step(cycle)` gets the cycle's number and the agent's state and returns the next state, JSON. Every `checkpoint_every`
cycles the state is saved as a checkpoint of the stream. When the chain of cycles breaks (a cycle failed, was denied or
cancelled, or its stream was restored), beat's job goes on from the last checkpoint, at most once in a cycle's time and
not while a switch stops it. The cycles since are done again, so what a cycle asks for carries a command_id made with
`cycle.command_id(...)`, and asking again changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.run import Run, current_run
from governance.core.instants import SECOND_US
from governance.errors import CommandConflict, InvalidOption
from governance.operations import loops
from governance.operations.checkpoints import SavedPoint

log = structlog.get_logger(__name__)

# Of each app, by name.
_LOOPS: Final = "acp_loops"


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle: its number from 1, the agent's state before it, and the run it is."""

    loop: str
    number: int
    state: Any
    run: Run

    def command_id(self, what: str) -> str:
        """The command_id of something this cycle asks for: the same when the cycle is done again."""
        return f"{self.loop}:{self.number}:{what}"


Step = Callable[[Cycle], Any]


class AgentLoop:
    """A loop of cycles, registered as a task of `app`. `every_s` is in seconds of the fleet's clock."""

    def __init__(
        self,
        app: Celery,
        *,
        name: str,
        stream: str,
        step: Step,
        every_s: float,
        cycles: int | None = None,
        checkpoint_every: int = 12,
        agent_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if every_s <= 0 or checkpoint_every < 1 or (cycles is not None and cycles < 1):
            raise InvalidOption("every_s, checkpoint_every, cycles", (every_s, checkpoint_every, cycles), "positive")
        self.name, self.stream, self.agent_id = name, stream, agent_id or name
        self.step, self.every_us = step, int(every_s * SECOND_US)
        self.cycles, self.checkpoint_every = cycles, checkpoint_every

        def cycle(number: int, state: dict[str, Any], lineage: str) -> Any:
            return self._cycle(number, state, lineage)

        terms: dict[str, Any] = {"risk": "low", "idempotent": True, **(options or {})}
        make: Any = app.task(name=name, shared=False, **terms)
        self.task: Any = make(cycle)
        loops_of(app)[name] = self

    def start(self, state: Any = None) -> str:
        """Begins with cycle 1, now; the id of its action. Once begun, starting again changes nothing."""
        began_us = bootstrap.governance().clock.now_us()
        return self._ask(1, {"agent": state, "began_us": began_us}, lineage="start", began_us=began_us)

    def resume(self) -> str | None:
        """Goes on from the last checkpoint if no cycle is under way; the id of the action, None with nothing to do."""
        gov = bootstrap.governance()
        broken = loops.broken(gov, self.stream, self.name, self.agent_id, self.every_us)
        if broken is None or self._is_over(broken.point):
            return None
        point = broken.point
        number = (point.cycle or 0) + 1
        action_id = self._ask(
            number, point.state, lineage=f"{point.id}:{broken.asked}", began_us=point.state["began_us"]
        )
        log.warning("loop goes on", loop=self.name, cycle=number, checkpoint=point.id, action=action_id)
        return action_id

    def _is_over(self, point: SavedPoint) -> bool:
        return self.cycles is not None and (point.cycle or 0) >= self.cycles

    def _cycle(self, number: int, state: dict[str, Any], lineage: str) -> Any:
        """The body of the task."""
        run = current_run()
        if number == 1 and lineage == "start":
            # What a loop goes on from that breaks before its first checkpoint.
            run.checkpoint(state, cycle=0)
        after = {**state, "agent": self.step(Cycle(self.name, number, state["agent"], run))}
        last = number == self.cycles
        if last or number % self.checkpoint_every == 0:
            run.checkpoint(after, cycle=number)
        if not last and not run.should_stop():
            self._ask(number + 1, after, lineage=lineage, began_us=after["began_us"])
        return after["agent"]

    def _ask(self, number: int, state: dict[str, Any], *, lineage: str, began_us: int) -> str:
        gov = bootstrap.governance()
        command_id = f"{self.name}:{lineage}:{number}"
        wait_us = began_us + (number - 1) * self.every_us - gov.clock.now_us()
        try:
            sent = self.task.apply_async(
                kwargs={"number": number, "state": state, "lineage": lineage},
                command_id=command_id,
                stream=self.stream,
                agent_id=self.agent_id,
                countdown=max(0.0, wait_us / SECOND_US) or None,
                ignore_result=True,
            )
        except CommandConflict:
            # This cycle was done before, up to here, and came to another state: the next one has begun from that.
            return loops.asked(gov, command_id)
        return str(sent.id)


def loops_of(app: Celery) -> dict[str, AgentLoop]:
    """The loops that are registered with an app, by name."""
    known: dict[str, AgentLoop] = app.__dict__.setdefault(_LOOPS, {})
    return known
