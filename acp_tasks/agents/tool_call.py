"""A tool call of an agent as a governed action: what the adapters of other libraries share.

Each tool is a governed task, and a call of it is enqueued like any other action and then waited for, rather than run
in the agent's process: what was asked for goes on when that process dies, and one that waits for a person needs none.
It comes to one of three answers:

    ToolAllowed   it ran, under a hold, and this is its result
    ToolDenied    it did not run, and this is what the model is told
    ToolParked    it waits, for a person or a time: the run stops here, and asks again later

The command_id is the run's id and the model's id of the call, so a run that is repeated, or resumed, repeats no effect:
asking again is how an answer is looked up. Inside a governed action the run is that action, and nothing is waited for:
a worker's slot must not wait for another one. Elsewhere `agent_run` names the run.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, assert_never

from acp_tasks import bootstrap
from acp_tasks.governed import GovernedTask
from acp_tasks.message import result_of
from acp_tasks.run import find_run
from acp_tasks.waking import wakes
from governance.core.actions import State
from governance.core.instants import iso
from governance.errors import ActionFailed, InvalidOption
from governance.operations.answers import Cancelled, Deferred, Denied, Ended, Parked
from governance.operations.suspensions import Doubtful, UnderWay, reached

WAIT_S: Final = 30.0
_LOOK_EVERY_S: Final = (0.02, 0.5)


@dataclass(frozen=True, slots=True)
class ToolAllowed:
    """It ran; what its task returned, as it came back from JSON."""

    action_id: str
    result: Any


@dataclass(frozen=True, slots=True)
class ToolDenied:
    """The policy, a person, a budget or a kill switch said no; `reason` is for the model, with advice if there is."""

    action_id: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToolParked:
    """It has not ended, and will not by itself within the time that was given; `ticket_id` when a person decides."""

    action_id: str
    ticket_id: str | None
    rule: str
    reason: str


ToolAnswer: TypeAlias = ToolAllowed | ToolDenied | ToolParked


@dataclass(frozen=True, slots=True)
class AgentRun:
    """A run of an agent: its id, how long a tool call is waited for, and options for `apply_async` of each."""

    id: str
    wait_s: float = WAIT_S
    options: Mapping[str, Any] = field(default_factory=dict)


_current: ContextVar[AgentRun | None] = ContextVar("acp_agent_run", default=None)


@contextmanager
def agent_run(run_id: str, *, wait_s: float = WAIT_S, **options: Any) -> Iterator[AgentRun]:
    """Names the run that the tool calls in this context belong to; the same name again is the same run.

    `options` are for `apply_async`: stream, agent_id, identity, ...
    """
    run = AgentRun(run_id, wait_s, options)
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def tool_name(task: GovernedTask) -> str:
    """What models call it: their names have no dots."""
    return task.name.replace(".", "_")


def answer(task: GovernedTask, arguments: Mapping[str, Any], call_id: str) -> ToolAnswer:
    """Has the call made, once, and waits for what comes of it. It blocks: `answer_soon` is for event loops.

    Raises ActionFailed when the tool itself failed, and what `apply_async` raises, CommandConflict for a call_id that
    was used for another call of the same run.
    """
    run = _run()
    action_id = ask(task, arguments, call_id, run)
    pause_s, longest_s = _LOOK_EVERY_S
    end_s = time.monotonic() + run.wait_s
    while True:
        found = look(action_id)
        if found is not None:
            return found
        if time.monotonic() >= end_s:
            return ToolParked(action_id, None, "under-way", "it has not ended yet")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)


async def answer_soon(task: GovernedTask, arguments: Mapping[str, Any], call_id: str) -> ToolAnswer:
    """As `answer`, in a thread: an event loop goes on meanwhile."""
    return await asyncio.to_thread(answer, task, arguments, call_id)


def ask(task: GovernedTask, arguments: Mapping[str, Any], call_id: str, run: AgentRun) -> str:
    """Enqueues the call unless that was done before; the id of its action."""
    around = find_run()
    waking = wakes(task.app, around.action_id) if around is not None else {}
    command_id = f"{run.id}:{call_id}"
    made = task.apply_async(
        kwargs=dict(arguments), command_id=command_id, ignore_result=True, **{**waking, **run.options}
    )
    assert made.id is not None
    return made.id


def look(action_id: str) -> ToolAnswer | None:
    """What came of a call; None while it is on its way. Raises ActionFailed, NotFound."""
    match reached(bootstrap.governance(), action_id):
        case Ended(action) if action.ref.state is State.FAILED:
            raise ActionFailed(action_id, action.error_type, action.error)
        case Ended(action):
            return ToolAllowed(action_id, result_of(action.result))
        case Denied(_, rule, reason, guidance, suggest):
            advice = f". {guidance}" if guidance else ""
            advice += f" (try instead: {', '.join(suggest)})" if suggest else ""
            return ToolDenied(action_id, rule, f"denied by {rule}: {reason}{advice}")
        case Cancelled(_, rule, reason):
            return ToolDenied(action_id, rule, f"stopped by {rule}: {reason}")
        case Parked(_, rule, reason, ticket_id):
            return ToolParked(action_id, ticket_id, rule, reason)
        case Deferred(_, until_us, reason, paused):
            return ToolParked(action_id, None, "deferred", reason if paused else f"until {iso(until_us)}: {reason}")
        case Doubtful(_, reason):
            return ToolParked(action_id, None, "in-doubt", reason)
        case UnderWay():
            return None
        case never:
            assert_never(never)


def _run() -> AgentRun:
    named = _current.get()
    if named is not None:
        return named
    around = find_run()
    if around is None:
        raise InvalidOption("agent_run", None, "`with agent_run(RUN_ID):` around the run, or a governed action")
    return AgentRun(around.command_id, wait_s=0.0)
