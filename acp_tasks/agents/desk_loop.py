"""The support desk in cycles: each takes some of the cases and asks for what they need."""

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

from celery import Celery

from acp_tasks.agents.cases import Read, read_cases, request_of
from acp_tasks.agents.horizons import STREAM, Horizon
from acp_tasks.agents.loop import AgentLoop, Cycle

NAME: Final = "desk.cycle"
AGENT: Final = "support-desk"
# However few cases there are: they come round again.
_CASES_MIN: Final = 2


def desk_loop(app: Celery, horizon: Horizon) -> AgentLoop:
    """The desk's loop of a horizon. Its state: {"cases": a file, "count": its cases, "asked": how many so far}."""
    return AgentLoop(
        app,
        name=NAME,
        stream=STREAM,
        step=partial(_step, app, horizon.cycles),
        every_s=horizon.every_s,
        cycles=horizon.cycles,
        checkpoint_every=horizon.checkpoint_every,
        agent_id=AGENT,
        options={"cost_usd": "0.0005"},
    )


def _step(app: Celery, cycles: int, cycle: Cycle) -> dict[str, Any]:
    state = cycle.state
    count = max(_CASES_MIN, -(-state["count"] // cycles))
    first = (cycle.number - 1) * count
    wanted = {number % state["count"] for number in range(first, first + count)}
    cases = (line.case for line in read_cases(Path(state["cases"])) if isinstance(line, Read))
    asked = 0
    for number, case in enumerate(islice(cases, state["count"])):
        if number not in wanted:
            continue
        request = request_of(case)
        task: Any = app.tasks[request.action]
        task.apply_async(
            kwargs=request.arguments,
            command_id=cycle.command_id(case.case_id),
            identity=case.identity,
            ignore_result=True,
        )
        asked += 1
    cycle.run.spend(cost_usd="0.0005")
    return {**cast("dict[str, Any]", state), "asked": state["asked"] + asked}
