"""Governed tools for agents of the OpenAI Agents SDK.

    agent = Agent(name="desk", tools=[governed_tool(reply), governed_tool(refund)])
    with agent_run("case-7"):
        result = await Runner.run(agent, "...")

A denial is what the tool answers. A call that waits interrupts the run, as any call that needs approval does; in the
same `agent_run`, `waiting(state)` says what each waits for. Keep `result.to_state().to_json()`, and once
`decided(state)` says that an answer is there, run the agent with that state. What the library then calls approved only
has the tool ask again: governance decides.
"""

import json
from contextlib import suppress
from typing import Any, assert_never

from acp_tasks.agents.tool_call import ToolAllowed, ToolAnswer, ToolDenied, ToolParked, answer_soon, tool_name
from acp_tasks.message import result_json
from governance.errors import ActionFailed, ExtraMissing, InvalidInput, ToolCallParked

try:
    from agents import FunctionTool, RunContextWrapper, RunState
    from agents.function_schema import function_schema
    from agents.tool_context import ToolContext
except ImportError as problem:
    raise ExtraMissing("openai-agents", "openai-agents") from problem


def governed_tool(task: Any, *, description: str | None = None) -> FunctionTool:
    """A governed task as a tool; its schema and description are the task's own."""
    schema = function_schema(task.run, name_override=tool_name(task), description_override=description)

    async def ask(arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        checked = schema.params_pydantic_model.model_validate(arguments)
        return await answer_soon(task, checked.model_dump(mode="json"), call_id)

    async def waits(_: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> Any:
        # A ToolParked, or None: the library only asks whether it is true, `waiting` what it says.
        with suppress(ActionFailed, InvalidInput, ValueError):  # said by the call itself, to the model
            answer = await ask(arguments, call_id)
            return answer if isinstance(answer, ToolParked) else None
        return None

    async def call(context: ToolContext[Any], arguments: str) -> str:
        try:
            answer = await ask(json.loads(arguments or "{}"), context.tool_call_id)
        except (ActionFailed, InvalidInput, ValueError) as failed:
            return str(failed)
        match answer:
            case ToolAllowed(_, result):
                return result if isinstance(result, str) else result_json(task.name, result)
            case ToolDenied(_, _, reason):
                return reason
            case ToolParked(action_id, ticket_id, rule, reason):
                raise ToolCallParked(action_id, ticket_id, rule, reason)
            case _:
                assert_never(answer)

    return FunctionTool(
        name=schema.name,
        description=schema.description or "",
        params_json_schema=schema.params_json_schema,
        on_invoke_tool=call,
        strict_json_schema=schema.strict_json_schema,
        needs_approval=waits,
    )


async def waiting(state: RunState[Any]) -> dict[str, ToolParked]:
    """Of the calls that a run was interrupted for, those that wait, by the model's id."""
    found = {}
    for item in state.get_interruptions():
        tool: Any = next(tool for tool in item.agent.tools if tool.name == item.tool_name)
        assert item.call_id is not None
        parked = await tool.needs_approval(RunContextWrapper(None), json.loads(item.arguments or "{}"), item.call_id)
        if parked is not None:
            found[item.call_id] = parked
    return found


async def decided(state: RunState[Any]) -> bool:
    """Has those interrupted calls made again, when the state is run, whose answer is there; whether there are any."""
    waits = await waiting(state)
    ready = [item for item in state.get_interruptions() if item.call_id not in waits]
    for item in ready:
        state.approve(item)
    return bool(ready)
