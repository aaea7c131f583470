"""Ticks of periodic jobs: beat may run twice or late, a tick's work is done once."""

from typing import Final

from governance.operations.context import Governance
from governance.store import commands

# Longer than a claim waits for a slow store, and than two machines' clocks differ: a claim from further ahead was made
# before the clock was put back.
_AHEAD_S: Final = 60.0


def claim(gov: Governance, job: str, every_s: float) -> bool:
    """True for the one caller that may do `job` in the current tick of `every_s` real seconds."""
    now_us = gov.clock.now_us()
    every_us = gov.clock.span_us(every_s)
    ahead = gov.clock.span_us(_AHEAD_S) // every_us + 1
    return commands.claim_tick(gov.store, job, now_us // every_us, now_us, ahead)
