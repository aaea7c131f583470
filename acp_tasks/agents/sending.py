"""Sending a call to an endpoint, and again where that is safe: where it says "not now", or never heard of the call.

A call that may have been worked on is never sent twice: what it used would be paid twice and counted once.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import openai
import structlog
from celery.exceptions import SoftTimeLimitExceeded

from acp_tasks.agents.model_calls import Reservation
from acp_tasks.interrupt import heed
from governance.errors import ModelCallFailed

if TYPE_CHECKING:
    from acp_tasks.run import Run

log = structlog.get_logger(__name__)

_TIMES: Final = 4
_WAIT_S: Final = 0.5
# An endpoint that wants more patience than this is for a later attempt of the action.
_WAIT_MAX_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.05
# Too many requests, and unable to handle any for now (RFC 6585, RFC 9110): nothing was done, and may be done later.
_NOT_NOW: Final = (429, 503)
# Not from this caller, or not here. Everything else may be said after work that is paid for: what breaks in the server
# or behind its gateway, and also a request that is found to be bad, by a filter of what it says or for its length.
_NO_WORK: Final = (*_NOT_NOW, 401, 403, 404)
# By name: the client's HTTP library changes its name, not theirs. The request has not left this machine.
_NEVER_SENT: Final = ("ConnectError", "ConnectTimeout", "PoolTimeout")
_T = TypeVar("_T")


def patiently(run: "Run", reservation: Reservation, send: Callable[[], _T]) -> _T:
    """What `send` answers. Raises ModelCallFailed, and what stops the run.

    Where no work was done the reservation is free again; after anything else it counts, for nobody knows what was used.
    """
    for number in range(1, _TIMES + 1):
        with _idle(reservation):
            heed(run)
        try:
            return send()
        except openai.APIStatusError as problem:
            wait_s = _wait_s(number, problem.response.headers)
            status = problem.status_code
            if status not in _NOT_NOW or number == _TIMES or wait_s > _WAIT_MAX_S:
                if status in _NO_WORK:
                    reservation.unused()
                raise ModelCallFailed(reservation.model, _said(problem, number, wait_s)) from problem
        except openai.APIConnectionError as problem:
            stopped = unwrapped(problem)
            if stopped is not None:
                raise stopped from None
            if not _never_sent(problem):
                raise ModelCallFailed(reservation.model, f"no answer: {problem.__cause__ or problem!r}") from problem
            wait_s = _wait_s(number, {})
            if number == _TIMES:
                reservation.unused()
                raise ModelCallFailed(reservation.model, f"not reached in {number} tries: {problem!r}") from problem
        except openai.OpenAIError as problem:
            raise ModelCallFailed(reservation.model, f"no answer that makes sense: {problem!r}") from problem
        log.info("model call is tried again", model=reservation.model, number=number, wait_s=wait_s)
        _wait(run, reservation, wait_s)
    raise AssertionError("unreachable: the last try returns or raises")


def unwrapped(problem: BaseException) -> BaseException | None:
    """What stops the body, if that is behind what the client made of it."""
    behind: BaseException | None = problem
    while behind is not None:
        if isinstance(behind, SoftTimeLimitExceeded):
            return behind
        behind = behind.__cause__ or behind.__context__
    return None


def _said(problem: openai.APIStatusError, number: int, wait_s: float) -> str:
    tries = f" in {number} tries" if number > 1 else ""
    later = f"; it asks for {wait_s:g} s" if wait_s > _WAIT_MAX_S else ""
    return f"the endpoint answered {problem.status_code}{tries}: {problem.message}{later}"


def _never_sent(problem: openai.APIConnectionError) -> bool:
    return type(problem.__cause__).__name__ in _NEVER_SENT


def _wait_s(number: int, headers: Mapping[str, Any]) -> float:
    """As long as the endpoint asks for, else longer each time, and not the same for everybody."""
    asked = str(headers.get("retry-after", ""))
    try:
        return max(float(asked), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(asked)
        said = parsedate_to_datetime(str(headers.get("date", "")))
        return max((at - said) / timedelta(seconds=1), 0.0)
    except (TypeError, ValueError):
        return float(_WAIT_S * 2 ** (number - 1) * (1 + random.random()))


def _wait(run: "Run", reservation: Reservation, seconds: float) -> None:
    """Until then, unless the run is stopped first."""
    until_s = time.monotonic() + seconds
    with _idle(reservation):
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_EVERY_S))
            heed(run)


@contextmanager
def _idle(reservation: Reservation) -> Iterator[None]:
    """Where nothing is under way: whoever is stopped here has used nothing."""
    try:
        yield
    except Exception:
        reservation.unused()
        raise
