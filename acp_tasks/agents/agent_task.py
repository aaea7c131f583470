"""A run of a pydantic-ai agent as a governed action, which may be killed between any two steps and may wait for days.

    @app.task(name="desk.answer", risk="low", idempotent=True, cost_usd="0.01")
    def answer(case_id):
        return work_through("gpt-5-mini", f"Answer case {case_id}.", [reply, refund], instructions="...")

Each call of the model is charged to the action, and each tool call is an action of its own. An attempt goes like this:

    1. the model answers; when it calls tools, what it said so far is saved before any of them is called
    2. the calls are made: what is denied is told at once, and what has to wait ends the attempt
    3. the last of them that ends, or a person's decision, begins the next attempt: back to 1, with the answers

So nothing is held while it waits: the run is a row, deferred until one of its tool calls has ended. An attempt that is
killed is repeated from what was saved. A tool call carries the id that the model gave it and that was saved with it, so
that making it again finds the first one; a model that has to be asked again was not heard, and nothing was done.
"""

import asyncio
from collections.abc import Iterable
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Final

from acp_tasks.agents.pydantic_ai import GovernedToolset, resumed, waiting
from acp_tasks.run import Run, Waiting, current_run
from governance.errors import ExtraMissing
from governance.faults import point

try:
    import openai
    from pydantic import TypeAdapter
    from pydantic_ai import Agent, DeferredToolRequests, ModelMessagesTypeAdapter
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
except ImportError as problem:
    raise ExtraMissing("pydantic-ai", "pydantic-ai") from problem

# A run looks by itself how far its tool calls are after a minute, and then less and less often.
_LOOK_AGAIN_S: Final = 60.0
_LOOK_AGAIN_S_MAX: Final = 3600.0
_requests: Final = TypeAdapter(DeferredToolRequests)


def work_through(model: str, prompt: str, tools: Iterable[Any], **agent: Any) -> Any:
    """What the agent comes to, in the body of a governed action, which is its run; `agent` are options of `Agent`.

    Raises what ends an attempt: Waiting for tool calls, AttemptFenced, ModelCallRefused, ModelCallFailed.
    """
    return asyncio.run(_work_through(current_run(), model, prompt, tools, agent))


async def _work_through(run: Run, model: str, prompt: str, tools: Iterable[Any], options: dict[str, Any]) -> Any:
    outputs = [options.pop("output_type", str), DeferredToolRequests]
    toolset = GovernedToolset(tools, after_save=True)
    agent: Any = Agent(_chat_model(run, model), toolsets=[toolset], output_type=outputs, **options)
    saved = run.progress()
    if saved is None:
        result = await agent.run(prompt)
    else:
        result = await _resume(agent, saved)
    while isinstance(result.output, DeferredToolRequests):
        point("after_agent_heard_before_save")
        saved = {
            "messages": ModelMessagesTypeAdapter.dump_python(result.all_messages(), mode="json"),
            "requests": _requests.dump_python(result.output, mode="json"),
        }
        run.save_progress(saved)
        made = [about["action_id"] for about in result.output.metadata.values() if "action_id" in about]
        if not made:
            point("after_agent_save_before_calls")
        elif len(waiting(result.output)) == len(result.output.approvals):
            point("after_agent_calls_before_wait")
            raise Waiting(tuple(made), min(_LOOK_AGAIN_S * 2 ** min(run.attempt, 10), _LOOK_AGAIN_S_MAX))
        result = await _resume(agent, saved)
    return result.output


async def _resume(agent: Any, saved: dict[str, Any]) -> Any:
    """Makes the tool calls that were saved, or looks how far they are, and has the model go on with the answers."""
    return await agent.run(
        message_history=ModelMessagesTypeAdapter.validate_python(saved["messages"]),
        deferred_tool_results=resumed(_requests.validate_python(saved["requests"])),
    )


def _chat_model(run: Run, name: str) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=_GovernedClient(run)))


class _GovernedClient(openai.AsyncOpenAI):
    """The client that pydantic-ai is given: what it asks for goes through `run.model`, and nothing goes elsewhere.

    It blocks its event loop, in which nothing else runs, so that a kill switch strikes in the call and not beside it.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(base_url="http://governed.invalid", api_key="none")
        self._run = run

    @cached_property
    def chat(self) -> Any:
        return SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def _create(self, *, model: str, messages: list[Any], stream: bool, **options: Any) -> Any:
        assert not stream, "a run is not streamed"
        given = {name: value for name, value in options.items() if not isinstance(value, openai.Omit | openai.NotGiven)}
        return self._run.model(model).chat(messages, **given)
