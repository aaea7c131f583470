"""What agents of other libraries call in the shop: its tasks, and the tools of an MCP server."""

from typing import Any

from mcp.client import Client
from mcp.server.mcpserver import MCPServer

from acp_tasks.agents.agent_task import work_through
from acp_tasks.agents.mcp import govern_server
from tests.support.shop import add, app, ask, asked, boom, never, single_effect

server = MCPServer("desk")


@server.tool()
def lookup(case_id: str) -> str:
    """What is known of a case."""
    return f"case {case_id} is open"


@server.tool()
def refund(case_id: str) -> str:
    """Pays money back."""
    return f"case {case_id} is refunded"


@server.tool()
def close(case_id: str) -> str:
    """Closes an account."""
    return f"case {case_id} is closed"


TOOLS = govern_server(
    app,
    "desk",
    lambda: Client(server),
    {"lookup": {"risk": "low", "idempotent": True}, "refund": {"risk": "high"}, "close": {"risk": "critical"}},
)


@app.task(name="t.agent", risk="low", idempotent=True, cost_usd="0.01", tokens=5000, model="small-1")
def agent(prompt: str) -> Any:
    """A run of an agent on the shop's tasks."""
    return work_through("small-1", prompt, [add, ask, asked, boom, never, single_effect])
