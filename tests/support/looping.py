"""Somebody's agent that works in cycles, on the shop's tasks."""

from pathlib import Path
from typing import Any

from acp_tasks.agents.loop import AgentLoop, Cycle
from tests.support.shop import app, effect, idempotent_effect

EVERY_S = 0.3
work: Any = idempotent_effect


def step(cycle: Cycle) -> Any:
    """Asks for one action, and counts; a file named after a cycle has that one fail, once."""
    folder = cycle.state["folder"]
    effect(folder, f"cycle-{cycle.number}")
    work.apply_async((folder,), command_id=cycle.command_id("work"), stream="work", ignore_result=True)
    wall = Path(folder) / f"fail-{cycle.number}"
    if wall.exists():
        wall.unlink()
        raise RuntimeError("a wall")
    return {**cycle.state, "sum": cycle.state["sum"] + cycle.number}


loop = AgentLoop(app, name="t.cycle", stream="agent", step=step, every_s=EVERY_S, cycles=10, checkpoint_every=4)
