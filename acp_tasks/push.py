"""Alerts by apprise (the extra `alerts`): chat, mail, pagers, whatever its URLs name. For people who want no receiver.

Beside the signed webhook, which is the one that programs can trust: here an alert counts as passed on as soon as one of
the URLs took it, and is tried again with the next run while none did, for a day.
"""

import time
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from governance.config import Settings
from governance.operations import alerts
from governance.operations.alerts import AlertLine
from governance.operations.context import Governance

log = structlog.get_logger(__name__)

INSTALL: Final = "pip install 'acp-tasks[alerts]'"
_RUN_S: Final = 20.0
# Longer than a run: who is killed meanwhile holds up the next one for no longer than this.
_TURN_S: Final = 60.0


def problem(settings: Settings) -> str | None:
    """Why ACP_APPRISE_URLS cannot be used as it is; None when it can, or is empty."""
    urls = settings.apprise_urls.split()
    if not urls:
        return None
    apprise = _apprise()
    if apprise is None:
        return f"ACP_APPRISE_URLS is set and apprise is not installed: {INSTALL}"
    unknown = [_shown(url) for url in urls if not apprise.Apprise().add(url)]
    if unknown:
        return f"ACP_APPRISE_URLS: apprise does not know {', '.join(unknown)}: expected URLs as apprise writes them"
    return None


def push(gov: Governance, settings: Settings) -> int:
    """Passes on what is pending, for at most 20 s and one message more; how many alerts. No receiver makes it raise."""
    if not settings.apprise_urls.split():
        return 0
    pending = alerts.unpushed(gov)
    if not pending:
        return 0
    apprise = _apprise()
    if apprise is None:
        log.warning("alerts not passed on: apprise is not installed", alerts=len(pending), install=INSTALL)
        return 0
    turn = alerts.take_push_turn(gov, _TURN_S)
    if turn is None:
        return 0
    ends_s = time.monotonic() + _RUN_S
    count = 0
    try:
        for line in pending:
            if time.monotonic() > ends_s or not _send(apprise, settings.apprise_urls.split(), line):
                break
            alerts.pushed(gov, line.id)
            count += 1
    finally:
        alerts.end_push_turn(gov, turn)
    return count


def _send(apprise: Any, urls: list[str], line: AlertLine) -> bool:
    """Whether one of the receivers took it; each that did not is logged, without what may be a secret."""
    title, body = f"acp: {line.kind}", _text(line)
    taken = False
    for url in urls:
        receiver = apprise.Apprise()
        try:
            told = bool(receiver.add(url)) and bool(receiver.notify(body=body, title=title, notify_type="warning"))
        except Exception as failure:
            # A plugin may raise anything; an alert for the others must not depend on it.
            log.warning("alert not passed on", alert=line.id, receiver=_shown(url), problem=type(failure).__name__)
            continue
        taken = taken or told
        if not told:
            log.warning("alert not passed on", alert=line.id, receiver=_shown(url))
    return taken


def _text(line: AlertLine) -> str:
    return "\n".join([line.id, *(f"{name}: {value}" for name, value in line.details.items())])


def _shown(url: str) -> str:
    """Only what kind of receiver it is: the rest may be a secret."""
    return f"{urlsplit(url).scheme}://***"


def _apprise() -> Any:
    """The library; None when it is not installed."""
    try:
        import apprise
    except ImportError:
        return None
    return apprise
