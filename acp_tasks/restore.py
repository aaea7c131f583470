"""Restoring a stream from a checkpoint on a fleet at work: pause it, stop what came after, restore, let it go on.

Until the last step the stream is paused, so a restore that is cut short fails closed; doing it again finishes it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from acp_tasks.publish import deliver
from acp_tasks.stop import Ended, stop
from governance.core.principals import Principal
from governance.core.switches import Mode, Scope
from governance.errors import InvalidOption, StateConflict
from governance.operations import checkpoints, clearing, switches
from governance.operations.checkpoints import Restored, SavedPoint
from governance.operations.context import Governance


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, and how what ran after the checkpoint was stopped."""

    point: SavedPoint
    restored: Restored
    stopped: tuple[Ended, ...]


def restore(
    app: Celery,
    gov: Governance,
    checkpoint_id: str,
    *,
    reason: str,
    by: Principal,
    grace_s: float = switches.GRACE_S,
    said: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """Raises NotFound, StateConflict, InvalidOption, NotAllowed, StoreUnavailable."""
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail: why the stream goes back")
    point = checkpoints.to_restore(gov, checkpoint_id)
    why = f"restored from checkpoint {point.id}: {reason}"
    paused = switches.engage(gov, Scope.STREAM, point.stream, mode=Mode.PAUSE, reason=why, by=by)
    said(f"stream {point.stream} is paused")
    stopped = _stop_later(app, gov, point, why, by, grace_s)
    if stopped:
        said(f"{len(stopped)} running actions that came after it were stopped")
    restored = checkpoints.restore(gov, point, reason=reason, by=by)
    for action_id in restored.cancelled:
        deliver(app, gov, action_id)
    if not paused.repeated or paused.switch.reason == why:
        for action_id in clearing.release(gov, paused.switch.id, reason=why, by=by):
            deliver(app, gov, action_id)
        said(f"stream {point.stream} goes on in session {restored.session_id}")
    return RestoreReport(point, restored, stopped)


def _stop_later(
    app: Celery, gov: Governance, point: SavedPoint, why: str, by: Principal, grace_s: float
) -> tuple[Ended, ...]:
    ended: list[Ended] = []
    for action_id in checkpoints.running_since(gov, point):
        report = stop(app, gov, Scope.ACTION, action_id, mode=Mode.KILL, reason=why, by=by, grace_s=grace_s)
        if not report.repeated:
            clearing.release(gov, report.switch_id, reason=why, by=by)
        if report.still_running:
            hint = f"stream {point.stream} stays paused: look after its worker, then restore again"
            raise StateConflict("action", action_id, "running", "stopped", hint)
        ended += report.ended
    return tuple(ended)
