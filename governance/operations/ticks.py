"""Ticks of periodic jobs: beat may run twice or late, a tick's work is done once."""

from governance.operations.context import Governance
from governance.store import commands


def claim(gov: Governance, job: str, every_s: float) -> bool:
    """True for the one caller that may do `job` in the current tick of `every_s` real seconds."""
    now_us = gov.clock.now_us()
    return commands.claim_tick(gov.store, job, now_us // gov.clock.span_us(every_s), now_us)
