"""The webhook's sender: notices by HTTP POST, signed as Standard Webhooks (standardwebhooks.com) says, each until the
receiver has answered.

At least once, in the order of each ticket. A receiver that is away costs one worker slot a little time now and then:
one sender at a time, a run stops when the receiver does not answer, and after a failure it rests.
"""

import base64
import hashlib
import hmac
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from http import HTTPStatus
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

import stamina
import structlog

from governance.clock import SystemClock
from governance.config import Settings, signing_key
from governance.core.digest import canonical_json
from governance.core.instants import SECOND_US, iso
from governance.operations import notify
from governance.operations.context import Governance
from governance.operations.notify import Notice, RaisedAlert, TicketSteps

log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 5.0
_RUN_S: Final = 20.0
# A run and its last attempt; who is killed meanwhile holds up the next run for no longer than this.
_TURN_S: Final = 40.0
_ATTEMPTS: Final = 3
# Less than a timeout: only quick failures are tried again at once.
_ATTEMPTS_S: Final = 4.0
# The receiver is left alone for this many times what its failures took.
_REST: Final = 4.0
_PAGE: Final = 200
_OLD_BATCH: Final = 1000
# Answers that are about the receiver and not about the notice: there is no use in sending it another one now.
_AWAY: Final = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
# A receiver lives in real time, however fast this fleet's clock runs.
_REAL: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where notices go, and the keys that sign them: several while one is being replaced."""

    url: str
    keys: tuple[bytes, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """Without path and query, which may be secrets."""
        parsed = urlsplit(self.url)
        return f"{parsed.scheme}://{parsed.netloc}"


class Answer(Enum):
    """What became of a notice that was sent."""

    TOLD = auto()
    REFUSED = auto()  # it would be refused for ever
    FAILED = auto()  # this notice did, another one may not
    AWAY = auto()  # any other would fail as well


class _NoAnswerError(Exception):
    """The attempt failed with `answer`, and another one may not."""

    def __init__(self, answer: Answer, why: str) -> None:
        super().__init__(why)
        self.answer = answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send what was signed for one address to another one."""

    def redirect_request(self, *_: Any) -> None:
        return None


@cache
def _opener() -> urllib.request.OpenerDirector:
    # With one context, the certificates are read once and not for every notice.
    return urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=ssl.create_default_context()))


def receiver(settings: Settings) -> Receiver | None:
    """None when no webhook is configured."""
    if not settings.webhook_url:
        return None
    return Receiver(settings.webhook_url, tuple(map(signing_key, settings.webhook_secret.split())))


def tell(gov: Governance, to: Receiver) -> int:
    """One run: tells what is pending until that is all, the receiver is away, or 20 s have passed; how many it told.

    Does nothing while another run, or the rest after a failure, lasts. Raises StoreUnavailable.
    """
    if not notify.anything_to_tell(gov):
        return 0
    turn = notify.take_turn(gov, _TURN_S)
    if turn is None:
        return 0
    run = _Run(gov, to)
    try:
        run.go()
    finally:
        notify.end_turn(gov, turn, rest_s=run.lost_s * _REST)
        if run.too_old:
            log.warning("not told: it happened more than 24 hours ago", notices=run.too_old, receiver=to.name)
    return run.told


def send(to: Receiver, notice: Notice) -> Answer:
    """Sends one notice, up to three times while that fails quickly; every failure is logged."""
    body = body_of(notice)
    try:
        for attempt in stamina.retry_context(
            on=_NoAnswerError, attempts=_ATTEMPTS, timeout=_ATTEMPTS_S, wait_initial=0.2, wait_jitter=0.1
        ):
            with attempt:
                return _post(to, notice, body)
    except _NoAnswerError as problem:
        log.warning("notice not told yet", notice=notice.id, kind=notice.kind, receiver=to.name, problem=str(problem))
        return problem.answer
    raise AssertionError("unreachable: the last attempt returns or raises")


def body_of(notice: Notice) -> bytes:
    """The notice as it is sent and signed."""
    content = {"type": notice.kind, "timestamp": iso(notice.at_us), "data": notice.payload}
    return canonical_json(content).encode()


def signatures(keys: tuple[bytes, ...], notice_id: str, timestamp_s: int, body: bytes) -> str:
    """The `webhook-signature` header: `v1,<base64>` for each key, separated by spaces."""
    signed = f"{notice_id}.{timestamp_s}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in keys)


class _Run:
    """One pass over what is pending."""

    def __init__(self, gov: Governance, to: Receiver) -> None:
        self._gov, self._to = gov, to
        self._ends_s = time.monotonic() + _RUN_S
        # Whose later notices wait for an earlier one.
        self._held: set[str] = set()
        self.told = 0
        self.too_old = 0
        self.lost_s = 0.0

    def go(self) -> None:
        while self._has_time() and (passed := notify.pass_over_old(self._gov, _OLD_BATCH)):
            self.too_old += passed
        for notice in self._pending():
            if notice.subject in self._held:
                continue
            began_s = time.monotonic()
            answer = self._tell(notice)
            match answer:
                case Answer.TOLD | Answer.REFUSED:
                    self.told += answer is Answer.TOLD
                    if not notify.notice_told(self._gov, notice):
                        # Somebody else tells what happens to this ticket.
                        self._held.add(notice.subject)
                case Answer.FAILED:
                    self.lost_s += time.monotonic() - began_s
                    self._held.add(notice.subject)
                case Answer.AWAY:
                    self.lost_s += time.monotonic() - began_s
                    return
                case _:
                    assert_never(answer)

    def _tell(self, notice: Notice) -> Answer:
        if notify.is_old(self._gov, notice):
            self.too_old += 1
            return Answer.REFUSED
        return send(self._to, notice)

    def _pending(self) -> Iterator[Notice]:
        """Page after page, while there is time for another attempt."""
        after = ""
        while page := notify.pending_notices(self._gov, _PAGE, after):
            for notice in page:
                if not self._has_time():
                    return
                yield notice
            match page[-1].about:
                case TicketSteps(ticket_id):
                    after = ticket_id
                case RaisedAlert():
                    # No ticket came after the alerts.
                    return

    def _has_time(self) -> bool:
        return time.monotonic() + _TIMEOUT_S < self._ends_s


def _post(to: Receiver, notice: Notice, body: bytes) -> Answer:
    """One attempt. Raises _NoAnswerError when another one may do better."""
    timestamp_s = _REAL.now_us() // SECOND_US
    headers = {
        "content-type": "application/json",
        "user-agent": "acp-tasks",
        "webhook-id": notice.id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signatures(to.keys, notice.id, timestamp_s, body),
    }
    request = urllib.request.Request(to.url, body, headers, method="POST")
    try:
        with _opener().open(request, timeout=_TIMEOUT_S) as answer:
            return _answer(to, notice, answer.status)
    except urllib.error.HTTPError as problem:
        with problem:
            return _answer(to, notice, problem.code)
    except (OSError, http.client.HTTPException, UnicodeError) as problem:
        raise _NoAnswerError(Answer.AWAY, f"it does not answer ({problem})") from problem


def _answer(to: Receiver, notice: Notice, status: int) -> Answer:
    if 200 <= status < 300:
        return Answer.TOLD
    if status in _AWAY:
        raise _NoAnswerError(Answer.AWAY, f"it answers {status}")
    if status >= 500:
        raise _NoAnswerError(Answer.FAILED, f"it answers {status}")
    about = {"notice": notice.id, "kind": notice.kind, "receiver": to.name, "status": status}
    if status >= 400:
        log.error("notice refused, and not sent again: see what the receiver logs about it", **about)
        return Answer.REFUSED
    log.warning("notice not told: no redirect is followed, set ACP_WEBHOOK_URL to where it leads", **about)
    return Answer.AWAY
