"""A task that waits for a person: the policy's `refunds-need-a-person` is about it."""

import json
import os

from celery import Celery

app = Celery("asked", task_cls="acp_tasks:GovernedTask")
app.conf.update(json.loads(os.environ["BENCHMARK_CELERY"]))


@app.task(name="case.refund", risk="medium", cost_usd="0.001", tokens=10, idempotent=True)
def refund(case_id: str) -> str:
    return case_id
