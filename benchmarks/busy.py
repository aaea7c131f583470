"""Actions that keep a pool busy until they are stopped, each in its own way."""

import json
import os
import time
from contextlib import suppress

from celery import Celery

from acp_tasks import current_run

app = Celery("busy", task_cls="acp_tasks:GovernedTask")
app.conf.update(json.loads(os.environ["BENCHMARK_CELERY"]))

_LONGEST_S = 120.0


@app.task(name="bench.cooperative", risk="low", idempotent=True)
def cooperative() -> None:
    """Works in steps of 50 ms and asks in between."""
    run, end_s = current_run(), time.monotonic() + _LONGEST_S
    while not run.should_stop() and time.monotonic() < end_s:
        time.sleep(0.05)


@app.task(name="bench.interruptible", risk="low", idempotent=True)
def interruptible() -> None:
    """One long step."""
    time.sleep(_LONGEST_S)


@app.task(name="bench.uncooperative", risk="low", idempotent=True)
def uncooperative() -> None:
    """Takes every exception for somebody else's."""
    end_s = time.monotonic() + _LONGEST_S
    while time.monotonic() < end_s:
        with suppress(Exception):
            time.sleep(0.05)
