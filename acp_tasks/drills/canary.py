"""The governed tasks of drills. They touch nothing but the clock, or their own process, and end by themselves."""

import os
import signal
import time
from enum import StrEnum
from typing import Final

from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.run import current_run
from governance.operations.drills import ASK, BYSTANDER, CANARY, FALL, FALL_ONCE

#: The longest that any of them runs, in real seconds, when nobody stops it.
LONGEST_S: Final = 60.0
_STEP_S: Final = 0.02


class Manner(StrEnum):
    """How a canary takes a stop: it asks whether to, or it sleeps and has to be interrupted."""

    COOPERATIVE = "cooperative"
    INTERRUPTIBLE = "interruptible"


def register_drills(app: Celery) -> None:
    """Makes the drills' actions tasks of `app`, governed like any other."""
    # Imported here: GovernedTask itself installs what is in this file.
    from acp_tasks.governed import GovernedTask

    for name, body in ((CANARY, canary), (BYSTANDER, bystander), (ASK, ask), (FALL, fall), (FALL_ONCE, fall)):
        app.task(
            name=name,
            base=GovernedTask,
            risk="low",
            idempotent=name != FALL_ONCE,
            # Little, but something: a drill proves that what was held is freed.
            cost_usd="0.001",
            tokens=1,
            ignore_result=True,
            shared=False,
        )(body)


def canary(manner: str) -> None:
    """Runs until it is stopped."""
    run = current_run()
    run.spend(cost_usd=0, tokens=0)
    if manner == Manner.INTERRUPTIBLE:
        time.sleep(LONGEST_S)
        return
    end_s = time.monotonic() + LONGEST_S
    while not run.should_stop() and time.monotonic() < end_s:
        time.sleep(_STEP_S)


def bystander(until_us: int) -> None:
    """Works until `until_us` of the fleet's clock, and finishes."""
    clock = bootstrap.governance().clock
    current_run().spend(cost_usd=0, tokens=0)
    end_s = time.monotonic() + LONGEST_S
    while clock.now_us() < until_us and time.monotonic() < end_s:
        time.sleep(_STEP_S)


def ask(number: int) -> int:
    """Asks a person, who is not to answer."""
    current_run().spend(cost_usd=0, tokens=0)
    return number


def fall() -> None:
    """Has the child that runs it killed, like the kernel does when memory is short; runs again to its end."""
    run = current_run()
    run.spend(cost_usd=0, tokens=0)
    if run.attempt > 1:
        return
    if not bootstrap.is_pool_child():
        raise RuntimeError("it does not run in a pool child, whose death its worker would survive")
    os.kill(os.getpid(), signal.SIGKILL)
