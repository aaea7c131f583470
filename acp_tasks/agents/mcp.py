"""Governed calls of the tools of an MCP server.

    connect = lambda: Client("http://.../mcp")
    DESK = govern_server(app, "desk", connect, {"refund": {"risk": "high", "cost_usd": "0.40"}})

    async with connect() as client:
        session = GovernedSession(client.session, DESK)
        with agent_run("case-7"):
            result = await session.call_tool("refund", {"case_id": "c7"}, call_id=tool_call.id)

Each tool becomes a governed task `mcp.<server>.<tool>`, whose body calls it over a connection of the worker's own: the
session that asked may be gone by the time that a person decides. A denial is a result with `is_error`, which the model
reads. A call that waits raises `ToolCallParked`; make it again, with the same call_id, once its action is decided.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_never

from celery import Celery

from acp_tasks.agents.tool_call import ToolAllowed, ToolDenied, ToolParked, answer_soon
from governance.core.digest import canonical_json, sha256
from governance.errors import ActionFailed, ExtraMissing, NotFound, ToolCallParked

try:
    from mcp.types import CallToolResult, TextContent
except ImportError as problem:
    raise ExtraMissing("mcp", "mcp") from problem

Connect = Callable[[], AbstractAsyncContextManager[Any]]


def govern_server(app: Celery, server: str, connect: Connect, tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A governed task for each of `tools` (name: task options), by the tool's name. `connect` opens a client."""
    return {name: _task(app, server, connect, name, terms) for name, terms in tools.items()}


def _task(app: Celery, server: str, connect: Connect, tool: str, terms: Mapping[str, Any]) -> Any:
    async def call(arguments: dict[str, Any]) -> dict[str, Any]:
        async with connect() as client:
            result = await client.call_tool(tool, arguments)
        said: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return said

    def body(**arguments: Any) -> dict[str, Any]:
        return asyncio.run(call(arguments))

    make: Any = app.task(name=f"mcp.{server}.{tool}", shared=False, **terms)
    return make(body)


class GovernedSession:
    """An MCP client session whose tool calls are governed actions; everything else is the session's own."""

    def __init__(self, session: Any, tasks: Mapping[str, Any]) -> None:
        self._session, self._tasks = session, tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def call_tool(
        self, name: str, arguments: dict[str, Any] | None = None, *, call_id: str | None = None
    ) -> CallToolResult:
        """As the session's. Without a `call_id`, calls of a run with the same arguments are one. Raises NotFound."""
        if name not in self._tasks:
            raise NotFound("governed tool", name, f"this session has {', '.join(self._tasks)}")
        made = call_id or f"{name}:{sha256(canonical_json(arguments or {}))[:32]}"
        try:
            answer = await answer_soon(self._tasks[name], arguments or {}, made)
        except ActionFailed as failed:
            return _error(str(failed))
        match answer:
            case ToolAllowed(_, result):
                return CallToolResult.model_validate(result)
            case ToolDenied(_, _, reason):
                return _error(reason)
            case ToolParked(action_id, ticket_id, rule, reason):
                raise ToolCallParked(action_id, ticket_id, rule, reason)
            case _:
                assert_never(answer)


def _error(reason: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=reason)], is_error=True)
