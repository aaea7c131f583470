"""The no-op task on plain Celery: nothing of ours is imported in its processes."""

import json
import os
from typing import Any

from celery import Celery

app = Celery("raw")
app.conf.update(json.loads(os.environ["BENCHMARK_CELERY"]))


@app.task(name="bench.noop")
def noop(number: int) -> Any:
    return number
