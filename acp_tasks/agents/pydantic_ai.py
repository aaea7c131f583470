"""Governed tools for agents of pydantic-ai.

    tools = GovernedToolset([reply, refund])
    agent = Agent(model, toolsets=[tools], output_type=[str, DeferredToolRequests])
    with agent_run("case-7"):
        result = await agent.run("...")

A denial is the tool's failure, which the model reads. A call that waits ends the run with `DeferredToolRequests`, as
any call that needs approval does; keep `result.all_messages()`, and go on with `message_history=` and
`deferred_tool_results=resumed(requests)` once `waiting(requests)` is empty. Resuming only has the toolset ask again:
what the library calls approved is decided by governance, here and now.
"""

from collections.abc import Iterable
from typing import Any, assert_never

from acp_tasks.agents.tool_call import ToolAllowed, ToolDenied, ToolParked, answer_soon, look, tool_name
from acp_tasks.governed import GovernedTask
from governance.errors import ActionFailed, ExtraMissing

try:
    from pydantic_ai import ApprovalRequired, DeferredToolRequests, DeferredToolResults, RunContext, Tool, ToolFailed
    from pydantic_ai.toolsets import FunctionToolset, ToolsetTool, WrapperToolset
except ImportError as problem:
    raise ExtraMissing("pydantic-ai", "pydantic-ai") from problem


class GovernedToolset(WrapperToolset[Any]):
    """Governed tasks as tools. With `after_save`, a call is not made in the run that the model asked for it in, but
    when that run is resumed: whoever keeps its messages in between never has an effect that they do not speak of.
    """

    def __init__(self, tasks: Iterable[Any], *, after_save: bool = False) -> None:
        self._tasks: dict[str, GovernedTask] = {tool_name(task): task for task in tasks}
        self._after_save = after_save
        tools = [Tool(task.run, takes_ctx=False, name=name) for name, task in self._tasks.items()]
        super().__init__(FunctionToolset(tools))

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext, tool: ToolsetTool) -> Any:
        """The result of the task. Raises ToolFailed for a denial, ApprovalRequired for a call that waits."""
        assert ctx.tool_call_id is not None, "a tool is called by a model"
        if self._after_save and not ctx.tool_call_approved:
            raise ApprovalRequired
        try:
            answer = await answer_soon(self._tasks[name], tool_args, ctx.tool_call_id)
        except ActionFailed as failed:
            raise ToolFailed(str(failed)) from failed
        match answer:
            case ToolAllowed(_, result):
                return result
            case ToolDenied(_, _, reason):
                raise ToolFailed(reason)
            case ToolParked(action_id, ticket_id, _, reason):
                raise ApprovalRequired({"action_id": action_id, "ticket_id": ticket_id, "reason": reason})
            case _:
                assert_never(answer)


def waiting(requests: DeferredToolRequests) -> dict[str, ToolParked | None]:
    """Of the calls that a run stopped for, those that wait, by the model's id; None: it is on its way."""
    made = {call.tool_call_id: requests.metadata.get(call.tool_call_id, {}) for call in requests.approvals}
    found: dict[str, ToolParked | None] = {}
    for call_id, about in made.items():
        try:
            reached = look(about["action_id"]) if "action_id" in about else None
        except ActionFailed:
            continue
        if reached is None or isinstance(reached, ToolParked):
            found[call_id] = reached
    return found


def resumed(requests: DeferredToolRequests) -> DeferredToolResults:
    """What a resumed run is given: each call is made again, and so finds what became of it."""
    return requests.build_results(approve_all=True)
