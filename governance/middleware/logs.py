"""Every log line of a run says which action, attempt's worker, command and correlation it belongs to."""

from collections.abc import Callable

import structlog

from governance.middleware.call import Call, Outcome


def logged(call: Call, proceed: Callable[[], Outcome]) -> Outcome:
    """Binds the action; the rest is bound when the row is known."""
    with structlog.contextvars.bound_contextvars(action=call.arrival.action_id, stream=call.arrival.stream):
        return proceed()
