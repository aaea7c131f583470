"""What the worker's main process learns about an attempt that its pool child cannot tell any more."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from acp_tasks import bootstrap
from acp_tasks.heart import LostChild, find_heart
from governance.operations.recover import timed_out


class GovernedRequest(Request):
    """Reports lost children and hard time limits before Celery sends the message back or fails it."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """A dead child is reclaimed first, so that the message that comes back finds the action free, or in doubt."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and _governed(self.task):
            heart = find_heart()
            if heart is not None:
                heart.report(LostChild(self.id, str(self.worker_pid), f"pool child {self.worker_pid} died: {error}"))
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """The hard limit: the attempt is fenced before its child is killed."""
        worker_id = bootstrap.worker_id()
        if not soft and _governed(self.task) and worker_id is not None:
            timed_out(bootstrap.governance(), self.id, worker_id, f"the hard time limit of {timeout:g} s passed")
        return super().on_timeout(soft, timeout)


def _governed(task: Any) -> bool:
    return bool(task.governed)
