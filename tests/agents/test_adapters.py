"""Tool calls of other libraries on a real fleet: what is allowed runs once, what is denied is told, what waits is asked
again once somebody decided.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from agents import Agent as OpenAIAgent
from agents import OpenAIChatCompletionsModel, RunConfig, Runner, RunState
from mcp.client import Client
from mcp.types import CallToolResult, TextContent
from pydantic_ai import Agent, DeferredToolRequests, ModelMessagesTypeAdapter
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from acp_tasks.agents import langchain, openai_agents
from acp_tasks.agents.mcp import GovernedSession
from acp_tasks.agents.pydantic_ai import GovernedToolset, resumed, waiting
from acp_tasks.agents.scripted_model import ScriptedModel
from acp_tasks.agents.tool_call import agent_run, answer
from governance.errors import CommandConflict, InvalidOption, ToolCallParked
from tests.support.fleet import Shop, assert_intact, settle

DIRECTED = """!call t_add {"x": 2, "y": 3}
!call t_never {}
!call t_boom {}
!call t_ask {"case_id": "c1", "number": 7}
!also t_ask {"case_id": "c1", "number": 8}"""
NEVER = "denied by never: too dangerous"
PARKED = ("ask", "a person decides", True)
MADE = [
    ("t.add", "succeeded"),
    ("t.ask", "denied"),
    ("t.ask", "succeeded"),
    ("t.boom", "failed"),
    ("t.never", "denied"),
]


@pytest.fixture(scope="module")
def shop(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, broker_address: str) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("agents")
    shop = Shop(folder, module_database_url, broker_address, SHOP_INCLUDE="tests.support.tooling")
    try:
        # A decision may overtake a worker's word that the action is parked; the relay, which beat drives, tells again.
        shop.beat()
        shop.worker().ready()
        yield shop
    finally:
        shop.close()


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(seed=3) as served:
        yield served


def told(model: ScriptedModel) -> list[str]:
    """What the model was told by tools, as of its last request."""
    return [str(message["content"]) for message in model.requests[-1]["messages"] if message["role"] == "tool"]


def made(shop: Shop, run_id: str) -> list[tuple[str, str]]:
    """(name, state) of every action of a run, sorted."""
    rows = shop.gov.store.read(
        "SELECT name, state FROM actions WHERE command_id LIKE :run ORDER BY name, state", {"run": f"{run_id}:%"}
    )
    return [(row[0], row[1]) for row in rows]


def said(result: CallToolResult) -> tuple[str, bool]:
    """The words of an MCP tool's answer, and whether it is an error."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text, result.is_error


def test_pydantic_ai(shop: Shop, model: ScriptedModel) -> None:
    tasks = (shop.tasks.add, shop.tasks.never, shop.tasks.boom, shop.tasks.ask)

    async def run(prompt: str | None, **options: Any) -> Any:
        async with openai.AsyncOpenAI(base_url=model.url, api_key="any") as client:
            chat = OpenAIChatModel("m-1", provider=OpenAIProvider(openai_client=client))
            agent: Any = Agent(chat, toolsets=[GovernedToolset(tasks)], output_type=[str, DeferredToolRequests])
            with agent_run("pydantic"):
                return await agent.run(prompt, **options)

    parked = asyncio.run(run(DIRECTED))
    five, never, boom = told(model)
    assert (five, NEVER in never, "ValueError: boom" in boom) == ("5", True, True)
    asked = waiting(parked.output)
    assert [one.rule for one in asked.values() if one is not None] == ["ask", "ask"]
    first, second = (one.action_id for one in asked.values() if one is not None)
    # The messages are kept as JSON, and the run goes on in another process.
    kept = ModelMessagesTypeAdapter.validate_json(parked.all_messages_json())
    early = asyncio.run(run(None, message_history=kept, deferred_tool_results=resumed(parked.output)))
    assert waiting(early.output).keys() == asked.keys()
    shop.approve(first)
    shop.deny(second, "once is enough")
    shop.until(first, "succeeded")
    assert waiting(early.output) == {}
    ended = asyncio.run(run(None, message_history=kept, deferred_tool_results=resumed(early.output)))
    assert ended.output
    assert told(model)[3] == "7"
    assert "denied by ask: once is enough" in told(model)[4]
    # The whole run once more: the same model, the same calls, no further effect.
    again = asyncio.run(run(DIRECTED))
    assert again.output == ended.output
    assert made(shop, "pydantic") == MADE


def test_openai_agents(shop: Shop, model: ScriptedModel) -> None:
    tasks = (shop.tasks.add, shop.tasks.never, shop.tasks.boom, shop.tasks.ask)

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=model.url, api_key="any") as client:
            agent: Any = OpenAIAgent(
                name="desk",
                model=OpenAIChatCompletionsModel("m-1", client),
                tools=[openai_agents.governed_tool(task) for task in tasks],
            )
            config = RunConfig(tracing_disabled=True)
            with agent_run("openai"):
                parked = await Runner.run(agent, DIRECTED, run_config=config)
                assert len(parked.interruptions) == 2
                kept = parked.to_state().to_json()
                five, never, boom = told(model)
                assert (five, never, "ValueError: boom" in boom) == ("5", NEVER, True)
                state = await RunState.from_json(agent, kept)
                asked = await openai_agents.waiting(state)
                assert list(asked) == [item.call_id for item in state.get_interruptions()]
                assert [(one.rule, one.reason, one.ticket_id is not None) for one in asked.values()] == [PARKED] * 2
                assert not await openai_agents.decided(state)
                first, second = (one.action_id for one in asked.values())
                shop.approve(first)
                shop.deny(second, "once is enough")
                shop.until(first, "succeeded")
                assert await openai_agents.waiting(state) == {}
                assert await openai_agents.decided(state)
                ended = await Runner.run(agent, state, run_config=config)
                assert ended.final_output
                assert told(model)[3:] == ["7", "denied by ask: once is enough"]
                again = await Runner.run(agent, DIRECTED, run_config=config)
                assert again.final_output == ended.final_output

    asyncio.run(run())
    assert made(shop, "openai") == MADE


def test_langchain(shop: Shop) -> None:
    tasks = (shop.tasks.add, shop.tasks.never, shop.tasks.boom, shop.tasks.ask)
    tools: dict[str, Any] = {tool.name: tool for tool in (langchain.governed_tool(t, description="...") for t in tasks)}
    assert "tool_call_id" not in str(tools["t_add"].tool_call_schema.model_json_schema())

    def call(name: str, call_id: str, **arguments: Any) -> Any:
        return tools[name].invoke({"type": "tool_call", "name": name, "args": arguments, "id": call_id})

    with agent_run("langchain"):
        assert (call("t_add", "1", x=2, y=3).content, call("t_add", "1", x=2, y=3).status) == ("5", "success")
        denied = asyncio.run(tools["t_never"].ainvoke({"type": "tool_call", "name": "t_never", "args": {}, "id": "2"}))
        assert (denied.content, denied.status) == (NEVER, "error")
        assert "ValueError: boom" in call("t_boom", "3").content
        for call_id, decide in (("4", shop.approve), ("5", shop.deny)):
            with pytest.raises(ToolCallParked) as parked:
                call("t_ask", call_id, case_id="c1", number=7)
            assert parked.value.ticket_id is not None
            decide(parked.value.action_id)
        approved, refused = (call("t_ask", call_id, case_id="c1", number=7).content for call_id in ("4", "5"))
        assert (approved, refused) == ("7", "denied by ask: no")
    assert made(shop, "langchain") == MADE


def test_mcp(shop: Shop) -> None:
    from tests.support.tooling import TOOLS, server

    async def run() -> None:
        async with Client(server) as client:
            session = GovernedSession(client.session, TOOLS)
            assert len((await session.list_tools()).tools) == 3
            with agent_run("mcp"):
                assert said(await session.call_tool("lookup", {"case_id": "c1"})) == ("case c1 is open", False)
                assert said(await session.call_tool("close", {"case_id": "c1"})) == (NEVER, True)
                for call_id, decide in (("1", shop.approve), ("2", shop.deny)):
                    with pytest.raises(ToolCallParked) as parked:
                        await session.call_tool("refund", {"case_id": "c1"}, call_id=call_id)
                    decide(parked.value.action_id)
                paid = await session.call_tool("refund", {"case_id": "c1"}, call_id="1")
                assert said(paid) == ("case c1 is refunded", False)
                refused = await session.call_tool("refund", {"case_id": "c1"}, call_id="2")
                assert said(refused) == ("denied by ask: no", True)

    asyncio.run(run())
    settle(shop)
    assert_intact(shop)
    assert [state for _, state in made(shop, "mcp")] == ["denied", "succeeded", "denied", "succeeded"]


def test_a_call_belongs_to_a_run_and_its_id_to_one_call(shop: Shop) -> None:
    with pytest.raises(InvalidOption, match="agent_run"):
        answer(shop.tasks.add, {"x": 1, "y": 2}, "1")
    with agent_run("ids"):
        answer(shop.tasks.add, {"x": 1, "y": 2}, "1")
        with pytest.raises(CommandConflict, match="ids:1"):
            answer(shop.tasks.add, {"x": 1, "y": 3}, "1")


def test_an_extra_that_is_not_installed_is_named() -> None:
    code = """if True:
        import importlib, sys
        for library, module in zip(sys.argv[1::2], sys.argv[2::2]):
            sys.modules[library] = None
            try:
                importlib.import_module(f"acp_tasks.agents.{module}")
            except Exception as problem:
                print(problem)"""
    names = ["pydantic_ai", "pydantic_ai", "agents", "openai_agents", "langchain_core", "langchain", "mcp", "mcp"]
    ended = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert [line.rpartition(" ")[2] for line in ended.stdout.splitlines()] == [
        f"'acp-tasks[{extra}]'" for extra in ("pydantic-ai", "openai-agents", "langchain", "mcp")
    ]
