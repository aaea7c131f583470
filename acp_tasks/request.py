"""What the worker's main process learns about an attempt that its pool child cannot tell any more."""

import os
from collections.abc import Mapping
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from acp_tasks import bootstrap
from acp_tasks.heart import EndedByForce, LostChild, Report, Revoked, find_heart
from governance.errors import ActionCancelled, ActionDenied


class GovernedRequest(Request):
    """Reports dead children, forced ends and revocations before Celery sends the message back or ends it."""

    accepted_us: int | None = None

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        self.accepted_us = bootstrap.governance().clock.now_us()
        super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """A dead child is reclaimed first, so that the message that comes back finds the action free, or in doubt.

        A refusal of this very action is told as what it is; one that its body met elsewhere is a failure.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        child = str(self.worker_pid)
        if isinstance(error, Terminated):
            _report(EndedByForce(self.id, child, "Terminated", f"it was terminated: {error}"))
        elif isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            _report(LostChild(child, f"pool child {child} died: {error}"))
        elif isinstance(error, ActionDenied) and error.action_id == self.id:
            # Flower knows states only from events, and `task-failed` would make a refusal look like a defect.
            answer = super().on_failure(exc_info, send_failed_event=False, return_ok=return_ok)
            kind = "task-cancelled" if isinstance(error, ActionCancelled) else "task-denied"
            self.send_event(kind, result=f"{error.rule}: {error.reason}")
            return answer
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """The hard limit: the attempt is fenced before its child is killed."""
        if not soft:
            reason = f"the hard time limit of {timeout:g} s passed"
            _report(EndedByForce(self.id, str(self.worker_pid), "TimeLimitExceeded", reason))
        return super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> Any:
        """A message that is thrown away before it ran ends its action; one that ran is ended by force."""
        if not terminated:
            _report(Revoked(self.id))
        return super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]


def children_at_work() -> Mapping[str, int | None] | None:
    """Each child process of this worker and when its present request began; None while one is on its way to a child."""
    requests = [request for request in list(state.reserved_requests) if isinstance(request, GovernedRequest)]
    active = {id(request) for request in list(state.active_requests)}
    if any(id(request) not in active and request.accepted_us is None for request in requests):
        return None
    at_work: dict[str, int | None] = {str(child): None for child in children_of(os.getpid())}
    for request in requests:
        if request.worker_pid is not None and request.accepted_us is not None:
            at_work[str(request.worker_pid)] = request.accepted_us
    return at_work


def request_of(child_pid: int) -> str | None:
    """The id of the request that a pool child has accepted and not answered; None between two messages."""
    return next((str(one.id) for one in list(state.active_requests) if one.worker_pid == child_pid), None)


def children_of(pid: int) -> list[int]:
    """The pool children of the worker whose main process is `pid`, this one."""
    from billiard import active_children

    return [child.pid for child in active_children() if child.pid is not None and child.pid != pid]


def _report(report: Report) -> None:
    heart = find_heart()
    if heart is not None:
        heart.report(report)
