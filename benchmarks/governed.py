"""The same no-op task behind governance: the two lines of somebody's own project."""

import json
import os
import time
from typing import Any

from celery import Celery

_BODY_S = float(os.environ.get("BENCHMARK_BODY_S", "0"))
app = Celery("governed", task_cls="acp_tasks:GovernedTask")
app.conf.update(json.loads(os.environ["BENCHMARK_CELERY"]))


@app.task(name="bench.noop", risk="low", cost_usd="0.001", tokens=10, idempotent=True)
def noop(number: int) -> Any:
    if _BODY_S:
        time.sleep(_BODY_S)
    return number
