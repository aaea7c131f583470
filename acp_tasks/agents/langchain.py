"""Governed tools for agents that are built on langchain-core.

    tools = [governed_tool(reply), governed_tool(refund)]
    model = model.bind_tools(tools)
    with agent_run("case-7"):
        message = tools[0].invoke(tool_call)    # a tool call of the model's answer, with its id

A denial is a `ToolMessage` with status "error", which the model reads. A call that waits raises `ToolCallParked`: keep
the messages up to the model's answer, and make the same tool call again once the action it names is decided.
"""

from typing import Annotated, Any, assert_never

from acp_tasks.agents.tool_call import ToolAllowed, ToolAnswer, ToolDenied, ToolParked, answer, answer_soon, tool_name
from governance.errors import ActionFailed, ExtraMissing, ToolCallParked

try:
    from langchain_core.tools import InjectedToolCallId, StructuredTool, ToolException
    from pydantic import create_model
except ImportError as problem:
    raise ExtraMissing("langchain-core", "langchain") from problem


def governed_tool(task: Any, *, description: str | None = None) -> StructuredTool:
    """A governed task as a tool; its schema and description are the task's own."""
    declared: Any = StructuredTool.from_function(task.run, name=tool_name(task), description=description)
    schema: Any = create_model(
        declared.name, __base__=declared.args_schema, tool_call_id=(Annotated[str, InjectedToolCallId], ...)
    )

    def call(tool_call_id: str, **arguments: Any) -> Any:
        try:
            return _content(answer(task, arguments, tool_call_id))
        except ActionFailed as failed:
            raise ToolException(str(failed)) from failed

    async def call_soon(tool_call_id: str, **arguments: Any) -> Any:
        try:
            return _content(await answer_soon(task, arguments, tool_call_id))
        except ActionFailed as failed:
            raise ToolException(str(failed)) from failed

    return StructuredTool(
        name=declared.name,
        description=declared.description,
        args_schema=schema,
        func=call,
        coroutine=call_soon,
        handle_tool_error=True,
    )


def _content(answer: ToolAnswer) -> Any:
    match answer:
        case ToolAllowed(_, result):
            return result
        case ToolDenied(_, _, reason):
            raise ToolException(reason)
        case ToolParked(action_id, ticket_id, rule, reason):
            raise ToolCallParked(action_id, ticket_id, rule, reason)
        case _:
            assert_never(answer)
