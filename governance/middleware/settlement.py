"""After the body: the attempt is ended in the store or, while the store is away, on disk, to be applied later, once."""

from collections.abc import Callable

import stamina
import structlog

from governance.errors import StoreUnavailable
from governance.faults import point
from governance.middleware.call import Call, Failed, Fenced, Outcome, Retrying, Returned
from governance.operations.context import Governance
from governance.operations.finish import Fenced as FencedFinish
from governance.operations.finish import Finish, Finished, finish

log = structlog.get_logger(__name__)

_ATTEMPTS = 6
_TIMEOUT_S = 5.0


def settled(call: Call, proceed: Callable[[], Outcome]) -> Outcome:
    """Ends the attempt with what the body did. The body is never run again to make up for a store that is away."""
    point("after_hold_before_run")
    outcome = proceed()
    if not isinstance(outcome, Returned | Failed | Retrying):
        return outcome
    point("after_run_before_finish")
    running = call.running()
    ending = Finish(
        ref=running.ref,
        holds=running.holds,
        outcome=outcome.ending,
        usage=call.reported.usage(),
        actor=f"worker:{call.lease.worker_id}",
        at_us=call.gov.clock.now_us(),
    )
    unwritten: tuple[type[Exception], ...] = (StoreUnavailable, *call.interrupts)
    try:
        finished = _patiently(call.gov, ending)
    except unwritten as problem:
        # Interrupted, it may have been written; written twice, it counts once.
        call.spool.keep(ending)
        log.warning("finish spooled", problem=str(problem))
        return outcome
    point("after_finish_before_result")
    if isinstance(finished, FencedFinish):
        log.warning("fenced", attempt=running.ref.attempt)
        return Fenced()
    return outcome


def _patiently(gov: Governance, ending: Finish) -> Finished:
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=_ATTEMPTS, timeout=_TIMEOUT_S, wait_initial=0.1):
        with attempt:
            return finish(gov, ending)
    raise AssertionError("unreachable: the last attempt returns or raises")
