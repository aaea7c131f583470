"""Somebody's own Celery project that uses governance: two lines, and the tasks the tests need."""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery

import beat_schedule
from acp_tasks import current_run
from tests.support import moved_clock, spans_file

moved_clock.install()
if "SHOP_SPANS" in os.environ:
    spans_file.install(os.environ["SHOP_SPANS"])
# A second for each, so that a test does not wait for them; unless it measures them as they are shipped.
TICKS = {name: {**entry, "schedule": 1.0, "args": (1.0,)} for name, entry in beat_schedule.SCHEDULE.items()}
if os.environ.get("SHOP_BEAT") == "shipped":
    TICKS = beat_schedule.SCHEDULE
app = Celery("shop", task_cls="acp_tasks:GovernedTask")
app.conf.update(
    broker_url=os.environ["ACP_BROKER_URL"],
    result_backend=os.environ["ACP_BROKER_URL"],
    include=[
        "tests.support.lasting",
        "tests.support.looping",
        "tests.support.modelling",
        *os.environ.get("SHOP_INCLUDE", "").split(),
    ],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    task_send_sent_event=True,
    task_track_started=True,
    result_backend_thread_safe=True,
    redis_socket_timeout=5,
    result_backend_always_retry=True,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("SHOP_VISIBILITY_S", "3600")),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
    },
    beat_schedule=TICKS,
)


def effect(folder: str, line: str) -> None:
    """Something done to the outside world, counted by the tests. It outlives the process, not the machine."""
    with open(Path(folder) / "effects.txt", "a") as file:
        file.write(line + "\n")


@app.task(name="t.add", risk="low", idempotent=True, cost_usd="0.001")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="t.total", risk="low")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="t.ask", risk="high", cost_usd="0.004", idempotent=False, resource="customer_case:{case_id}")
def ask(case_id: str, number: int = 1) -> int:
    return number


@app.task(name="t.never", risk="critical")
def never(number: int = 1) -> int:
    return number


@app.task(name="t.undeclared")
def undeclared() -> int:
    return 1


@app.task(name="t.boom", risk="low")
def boom() -> None:
    raise ValueError("boom")


@app.task(name="t.flaky", bind=True, risk="low", idempotent=True)
def flaky(self: Any, failures: int) -> list[int]:
    run = current_run()
    if run.attempt <= failures:
        raise self.retry(countdown=0.05, max_retries=10)
    return [self.request.retries, run.attempt]


@app.task(name="t.seen", risk="low", idempotent=True, tokens=100, cost_usd="0.10")
def seen(folder: str) -> dict[str, Any]:
    run = current_run()
    run.spend(cost_usd="0.02", tokens=30)
    run.spend(cost_usd="0.01")
    run.emit("looked", {"at": "things"})
    effect(folder, run.command_id)
    return {
        "action_id": run.action_id,
        "command_id": run.command_id,
        "attempt": run.attempt,
        "should_stop": run.should_stop(),
    }


@app.task(name="t.inherits", risk="low")
def inherits() -> str:
    return str(add.delay(1, 2).id)


@app.task(name="t.effect", risk="low", idempotent=True)
def idempotent_effect(folder: str) -> int:
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    return run.attempt


@app.task(name="t.once", risk="low", idempotent=False)
def single_effect(folder: str) -> int:
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    return run.attempt


@app.task(name="t.takes", risk="low", idempotent=True)
def takes(folder: str, seconds: float) -> int:
    """Its effect is in the middle of its time."""
    run = current_run()
    time.sleep(seconds / 2)
    effect(folder, f"{run.command_id} {run.attempt}")
    time.sleep(seconds / 2)
    return run.attempt


@app.task(name="t.takes_once", risk="low", idempotent=False)
def takes_once(folder: str, seconds: float) -> int:
    return int(takes.run(folder, seconds))


@app.task(name="t.asked", risk="high", idempotent=False)
def asked(folder: str) -> int:
    """A person decides whether it has its effect."""
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    return run.attempt


@app.task(name="t.dies", risk="low", idempotent=True)
def dies(folder: str) -> int:
    """Takes its pool child with it the first time."""
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    if run.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return run.attempt


@app.task(name="t.dies_once", risk="low", idempotent=False)
def dies_once(folder: str) -> int:
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@app.task(name="t.waits", risk="low", idempotent=True)
def waits(folder: str) -> int:
    """Runs until a file appears."""
    run = current_run()
    effect(folder, f"{run.command_id} {run.attempt}")
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    return run.attempt


@app.task(name="t.says_progress", bind=True, risk="low", idempotent=True)
def says_progress(self: Any, folder: str) -> int:
    """Says of itself how far it is, and waits for a file."""
    self.update_state(state="PROGRESS", meta={"done": 1})
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    return 2


@app.task(name="t.hangs", risk="low", idempotent=True, time_limit=2)
def hangs() -> None:
    time.sleep(60)


@app.task(name="t.calls", risk="low", idempotent=True)
def calls(folder: str) -> int:
    """Calls another governed task directly, and is killed in the middle of it the first time."""
    if current_run().attempt == 1:
        return int(dies(folder))
    return 2


@app.task(name="t.item", risk="low", idempotent=False)
def item(folder: str, number: int) -> int:
    """The second item takes its pool child with it."""
    effect(folder, f"item {number}")
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@app.task(name="t.odd", risk="low")
def odd(nested: dict[str, object], how: str) -> str:
    if how == "raise":
        raise ValueError("half a pair \ud83d and a \x00")
    return "half a pair \ud83d"


@app.task(name="t.tries", bind=True, risk="low", idempotent=True)
def tries(self: Any, folder: str) -> None:
    effect(folder, "tried")
    raise self.retry(countdown=0)


@app.task(name="t.says", risk="low")
def says(line: str) -> None:
    logging.getLogger("shop").info(line)


@app.task(name="t.overtime", risk="low", soft_time_limit=1)
def overtime() -> None:
    time.sleep(60)


@app.task(name="t.templated", risk="low", resource="order:{order_id}")
def templated(case_id: str) -> None:
    """Its resource names an argument that it does not have."""


@app.task(name="t.not_json", risk="low")
def not_json() -> object:
    return object()


@app.task(name="t.noted", governed=False)
def noted(request: Any, error: Any, traceback: Any) -> None:
    """An errback: Celery calls it with the failed task's request."""
    effect(os.environ["SHOP_FOLDER"], f"errback {request.id} {type(error).__name__}")


@app.task(name="s.path", bind=True, risk="low", idempotent=True, resource="file:{path}")
def path(self: Any, folder: str, path: str, later: str = "") -> str:
    """Touches a file, and then another one by way of a retry."""
    effect(folder, f"touched {path}")
    if later and current_run().attempt == 1:
        raise self.retry(kwargs={"folder": folder, "path": later}, args=(), countdown=0)
    return path


@app.task(name="s.remembers", risk="low", idempotent=True)
def remembers(number: int) -> Any:
    """What was saved before; saves a number."""
    run = current_run()
    before = run.last_checkpoint()
    run.checkpoint({"n": number}, cycle=number)
    return before.state if before is not None else None
