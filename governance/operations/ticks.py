"""Ticks of periodic jobs: beat may run twice or late, a tick's work is done once, and what became of it is noted."""

from typing import Final

from governance.operations.context import Governance
from governance.store import commands

# Longer than a claim waits for a slow store, and than two machines' clocks differ: a claim from further ahead was made
# before the clock was put back.
_AHEAD_S: Final = 60.0


def claim(gov: Governance, job: str, every_s: float) -> int | None:
    """The number of the current tick of `every_s` real seconds, for the one caller that may do `job` in it."""
    now_us = gov.clock.now_us()
    every_us = gov.clock.span_us(every_s)
    ahead = gov.clock.span_us(_AHEAD_S) // every_us + 1
    tick = now_us // every_us
    return tick if commands.claim_tick(gov.store, job, tick, now_us, ahead) else None


def finish(gov: Governance, job: str, tick: int, *, looked: int | None = None) -> None:
    """The job came to its end; `looked` is how much a scan looked at."""
    commands.finish_tick(gov.store, job, tick, looked=looked, now_us=gov.clock.now_us())
