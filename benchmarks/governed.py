"""The same no-op task behind governance: the two lines of somebody's own project."""

import json
import os
from typing import Any

from celery import Celery

app = Celery("governed", task_cls="acp_tasks:GovernedTask")
app.conf.update(json.loads(os.environ["BENCHMARK_CELERY"]))


@app.task(name="bench.noop", risk="low", cost_usd="0.001", tokens=10, idempotent=True)
def noop(number: int) -> Any:
    return number
