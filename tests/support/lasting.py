"""The shop's tasks that go on until they are stopped.

A stop may come as soon as a body's line `started` can be read, which is before the body has got over writing it: so
whatever a body stands for, it is by then.
"""

import asyncio
import subprocess
import time
from contextlib import suppress

from acp_tasks import current_run
from tests.support.shop import app, effect


@app.task(name="s.cooperates", risk="low", idempotent=False)
def cooperates(folder: str) -> str:
    """Asks whether to stop, and cleans up."""
    run = current_run()
    run.should_stop()
    effect(folder, f"started {run.action_id}")
    deadline_s = time.monotonic() + 60
    while not run.should_stop() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    effect(folder, f"cleaned {run.action_id}")
    return "partial"


@app.task(name="s.sleeps", risk="low", idempotent=True)
def sleeps(folder: str) -> None:
    effect(folder, f"started {current_run().action_id}")
    time.sleep(60)


@app.task(name="s.sleeps_once", risk="low", idempotent=False)
def sleeps_once(folder: str) -> None:
    effect(folder, f"started {current_run().action_id}")
    time.sleep(60)


@app.task(name="s.stubborn", risk="low", idempotent=False)
def stubborn(folder: str) -> None:
    """Takes every exception for somebody else's, and leaves a subprocess running."""
    process = subprocess.Popen(["sleep", "60"])
    _whatever_comes(folder, f"started {current_run().action_id} {process.pid}")


@app.task(name="s.starts", risk="low", idempotent=True)
def starts(folder: str) -> None:
    """Leaves a subprocess running when it is stopped."""
    process = subprocess.Popen(["sleep", "60"])
    effect(folder, f"started {current_run().action_id} {process.pid}")
    time.sleep(60)


@app.task(name="s.cleans", risk="low", idempotent=True)
def cleans(folder: str) -> None:
    """Needs longer to clean up than it takes to be asked twice."""
    try:
        effect(folder, f"started {current_run().action_id}")
        time.sleep(60)
    finally:
        time.sleep(0.6)
        effect(folder, f"cleaned {current_run().action_id}")


@app.task(name="s.deaf", risk="low", idempotent=True)
def deaf(folder: str) -> None:
    _whatever_comes(folder, f"started {current_run().action_id}")


@app.task(name="s.outer", risk="low", idempotent=True)
def outer(folder: str) -> None:
    """Waits for another governed task that it calls directly."""
    cooperates(folder)


@app.task(name="s.again", autoretry_for=(Exception,), retry_backoff=False, risk="low", idempotent=True)
def again(folder: str) -> None:
    """Asks for another attempt whatever ends it."""
    effect(folder, f"started {current_run().action_id}")
    time.sleep(60)


@app.task(name="s.awaits", risk="low", idempotent=True)
def awaits(folder: str) -> None:
    """Waits in an event loop, and cleans up in it."""

    async def body() -> None:
        try:
            effect(folder, f"started {current_run().action_id}")
            await asyncio.sleep(60)
        finally:
            effect(folder, f"cleaned {current_run().action_id}")

    asyncio.run(body())


def _whatever_comes(folder: str, line: str) -> None:
    """Says `line` and goes on, past the one exception that a stop raises in an attempt."""
    with suppress(Exception):
        effect(folder, line)
        time.sleep(60)
    time.sleep(60)
