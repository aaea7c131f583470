"""An agent that works by itself, in cycles, on a governed fleet of its own. What a cycle asks for is governed, too."""

import argparse
import time
from pathlib import Path

from celery import Celery

from acp_tasks import GovernedTask, bootstrap
from acp_tasks.agents.horizons import HORIZONS, STREAM, write_policy
from acp_tasks.agents.loop import AgentLoop, Cycle
from acp_tasks.app import celery_settings
from acp_tasks.cli import acp
from acp_tasks.fleet.process import Stack
from acp_tasks.fleet.rehearsal import settings_for
from acp_tasks.fleet.stack import Fleet, Plan
from acp_tasks.fleet.state_folder import locked_folder
from beat_schedule import SCHEDULE
from governance.config import load_settings
from governance.operations.checkpoints import last_state
from governance.policy_file import packaged_policy

horizon = HORIZONS[load_settings().horizon or "hour"]
app = Celery("agent", task_cls=GovernedTask)
app.conf.update(celery_settings(load_settings()), beat_schedule=SCHEDULE)


@app.task(name="note.write", risk="low", idempotent=True, cost_usd="0.002", resource="note:{number}")
def write_note(number: int) -> str:
    return f"note {number}"


def think(cycle: Cycle) -> int:
    write_note.apply_async((cycle.number,), command_id=cycle.command_id("note"), ignore_result=True)
    return cycle.state + 1


terms = {"every_s": horizon.every_s, "cycles": horizon.cycles, "checkpoint_every": 4}
agent = AgentLoop(app, name="agent.cycle", stream=STREAM, step=think, **terms)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizon", choices=HORIZONS, default="hour")
    parser.add_argument("--compress", type=float, default=1.0, help="times faster than the world; 1 is real time")
    asked = parser.parse_args()
    chosen, now_us = HORIZONS[asked.horizon], time.time_ns() // 1000
    with locked_folder(Path(".acp", f"agent-{now_us}")) as folder, Stack() as stack:
        write_policy(chosen, packaged_policy(), folder / "policy.yaml")
        settings = {"PYTHONPATH": str(Path(__file__).absolute().parent), **settings_for(chosen, asked.compress, now_us)}
        name = Path(__file__).stem
        fleet = Fleet(Plan(folder, folder / "policy.yaml", chosen.database, app=name, settings=settings), stack)
        fleet.start_servers()
        fleet.start_programs()
        __import__(name).agent.start(0)  # as the workers import it: the environment leads to the fleet now
        while (point := last_state(bootstrap.governance(), STREAM)) is None or (point.cycle or 0) < chosen.cycles:
            print(f"cycle {point.cycle if point else 0} of {chosen.cycles} is saved, not ready: {fleet.check()}")
            time.sleep(5)
        for command in ("sessions list", "checkpoints list", "drill list", "audit verify"):
            acp.main(command.split(), standalone_mode=False)
