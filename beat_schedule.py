"""Every periodic job of the fleet: its cadence and why, nothing else. Seconds are real seconds.

In another project: `app.conf.beat_schedule |= beat_schedule.SCHEDULE`.
"""

from typing import Any

from acp_tasks.control_queue import CONTROL


def _every(job: str, seconds: float) -> dict[str, Any]:
    # A tick that could not be delivered before the next one is of no use any more.
    options = {"expires": 2 * seconds, "queue": CONTROL}
    return {"task": job, "schedule": seconds, "args": (seconds,), "options": options}


SCHEDULE: dict[str, dict[str, Any]] = {
    # A message that is known to be unpublished waits for one tick at most.
    "relay": _every("acp.relay", 5.0),
    # A dead worker is suspected this much later at most, and given up once it was watched; with the lease under 30 s.
    "recovery": _every("acp.recovery", 4.0),
    # The next window is open well before one ends; what is over is emptied and closed this much later at most.
    "rotation": _every("acp.rotation", 5.0),
    # An agent whose chain of cycles broke rests this long at most.
    "loops": _every("acp.loops", 10.0),
    # A checkpoint that is due is taken this much later at most; ACP_CHECKPOINT_EVERY_S says when one is due.
    "checkpoints": _every("acp.checkpoints", 10.0),
    # What waits in the scope of a kill switch is cancelled, and what a pause held up goes on, this much later at most.
    "switches": _every("acp.switches", 5.0),
    # An approval that timed out moves up its chain, or is denied, this much later at most.
    "escalation": _every("acp.escalation", 5.0),
    # An approver hears of a request this much later at most; a person's time is worth more than a look at an index.
    "notices": _every("acp.notices", 3.0),
    # Sealed events can be replayed; a small lag keeps each batch worth its transaction.
    "sealing": _every("acp.sealing", 10.0),
    # A drill that is due begins this much later at most; ACP_DRILL_EVERY_S says when one is due.
    "drills": _every("acp.drills", 60.0),
    # An hour's figures are there this much after it at most, and a fleet that was away catches up.
    "scorecards": _every("acp.scorecards", 30.0),
    # A rate or an age that is worth a person's attention is told this much later at most; it reads an hour of events.
    "alerts": _every("acp.alerts", 60.0),
    # A week that is over is summed up this much later at most; ACP_USAGE_SUMMARY says how often, by the fleet's clock.
    "usage": _every("acp.usage", 600.0),
    # History is counted in days; an hour's share is small enough for one slot.
    "retention": _every("acp.retention", 3600.0),
}
