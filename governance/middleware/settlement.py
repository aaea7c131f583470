"""After the body: the attempt is ended in the store or, while the store is away, on disk, to be applied later, once."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import stamina
import structlog

from governance.core.ledger import Usage
from governance.errors import StoreUnavailable
from governance.faults import point
from governance.middleware.call import Call, Failed, Fenced, Outcome, Retrying, Returned, StoppedShort, Suspending
from governance.middleware.insistence import insist
from governance.operations.context import Governance
from governance.operations.finish import Fenced as FencedFinish
from governance.operations.finish import Finish, Finished, Raised, finish
from governance.tracing import span

log = structlog.get_logger(__name__)

_ATTEMPTS = 6
_TIMEOUT_S = 5.0


def settled(call: Call, proceed: Callable[[], Outcome]) -> Outcome:
    """Ends the attempt with what the body did. The body is never run again to make up for a store that is away."""
    try:
        point("after_hold_before_run")
        with span("acp.run", attributes={"acp.attempt": call.running().ref.attempt}) as told:
            outcome = proceed()
            if isinstance(outcome, Failed):
                told.fail(type(outcome.error).__name__)
    except call.interrupts as problem:
        # The time limit struck around the body and not in it.
        outcome = Failed(problem, Raised(type(problem).__name__, "the time limit passed"))
    if not isinstance(outcome, Returned | Failed | Retrying | StoppedShort | Suspending):
        return outcome
    point("after_run_before_finish")
    running = call.running()
    ending = Finish(
        ref=running.ref,
        holds=running.holds,
        outcome=outcome.ending,
        usage=call.add_up(),
        actor=f"worker:{call.lease.worker_id}",
        at_us=call.gov.clock.now_us(),
        topped_up=call.topped_up,
    )
    try:
        with span("acp.finish", attributes=_said(ending)):
            finished = _written(call, ending)
    except Exception as problem:
        # The store is there and refuses this content; the attempt ends all the same, with something it keeps.
        log.exception("outcome not recordable")
        refused = Raised(type(problem).__name__, "the outcome could not be recorded")
        finished = _written(call, replace(ending, outcome=refused, usage=Usage()))
        outcome = Failed(problem, refused)
    point("after_finish_before_result")
    if isinstance(finished, FencedFinish):
        log.warning("fenced", attempt=running.ref.attempt)
        return Fenced()
    return replace(outcome, recorded=True) if isinstance(outcome, Returned) and finished is not None else outcome


def _said(ending: Finish) -> dict[str, str | int | None]:
    return {
        "acp.outcome": type(ending.outcome).__name__.lower(),
        "acp.cost_micros": ending.usage.cost_micros,
        "acp.tokens": ending.usage.tokens,
    }


def _written(call: Call, ending: Finish) -> Finished | None:
    """Into the store, else onto the disk (None). Raises what the store says of content it refuses."""
    # Interrupted, it may have been written; written twice, it counts once.
    return insist(call, "finish", lambda: _patiently(call.gov, ending), lambda: _spooled(call, ending))


def _spooled(call: Call, ending: Finish) -> None:
    call.spool.keep(ending)
    log.warning("finish spooled")


def _patiently(gov: Governance, ending: Finish) -> Finished:
    # Once without the patience, which costs a tenth of a finish.
    with suppress(StoreUnavailable):
        return finish(gov, ending)
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=_ATTEMPTS, timeout=_TIMEOUT_S, wait_initial=0.1):
        with attempt:
            return finish(gov, ending)
    raise AssertionError("unreachable: the last attempt returns or raises")
