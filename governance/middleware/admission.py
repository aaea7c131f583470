"""Before the body: the attempt and its holds, or what becomes of the message instead."""

from collections.abc import Callable

import structlog

from governance.errors import AdmissionUncertain, StoreUnavailable
from governance.middleware.call import Call, Outcome, StoreAway
from governance.middleware.insistence import insist
from governance.operations.admit import admit
from governance.operations.answers import Admitted
from governance.operations.finish import give_back
from governance.tracing import span

log = structlog.get_logger(__name__)


def admitted(call: Call, proceed: Callable[[], Outcome]) -> Outcome:
    """Proceeds only with a committed admission.

    When the store goes away under the write, the admission may or may not have been committed. A note on disk gives it
    back: the attempt never started its body, so its holds are void and the action waits for a message again.
    """
    try:
        with span("acp.admit") as told:
            admission = admit(call.gov, call.arrival, call.lease)
            told.set({"acp.decision": type(admission).__name__.lower(), "acp.rule": getattr(admission, "rule", None)})
    except AdmissionUncertain as problem:
        _keep(call, problem.started_us)
        return StoreAway(str(problem))
    except StoreUnavailable as problem:
        return StoreAway(str(problem))
    except call.interrupts as problem:
        # It may have been committed. No other message of this action reaches this child before the next line is done.
        try:
            give_back(call.gov, call.arrival.action_id, call.lease, None)
        except StoreUnavailable as away:
            log.error("admission not given back", problem=str(away))
        return StoreAway(f"interrupted during admission: {problem!r}")
    if not isinstance(admission, Admitted):
        return admission
    call.admission = admission
    with structlog.contextvars.bound_contextvars(
        session=admission.ref.session_id,
        attempt=admission.ref.attempt,
        command_id=admission.action.command_id,
        correlation_id=admission.action.correlation_id,
    ):
        return proceed()


def _keep(call: Call, started_us: int) -> None:
    """On disk first: the store that did not answer may still be writing."""
    action_id = call.arrival.action_id
    insist(
        call,
        "what gives an admission back",
        lambda: call.spool.give_back(action_id, call.lease, started_us),
        lambda: _given_back(call, started_us),
    )


def _given_back(call: Call, started_us: int) -> None:
    give_back(call.gov, call.arrival.action_id, call.lease, started_us)
