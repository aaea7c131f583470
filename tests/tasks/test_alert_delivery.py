"""Alerts reach people: by apprise over a real receiver, and past a beat that does not run any more."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from acp_tasks import push
from governance.config import Settings, load_settings
from governance.operations import notify
from governance.operations.alerts import list_alerts
from governance.operations.context import Governance
from tests.support.fleet import Shop, eventually
from tests.support.governed import Desk, ManualClock, make_governance
from tests.support.listener import Heard, Listener
from tests.support.terminal import Terminal

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
# Of the library itself, on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
has_apprise = pytest.mark.skipif(
    importlib.util.find_spec("apprise") is None and not os.environ.get("CI"),
    reason="the extra `alerts` is not installed",
)


class ChatListener(Listener):
    """Apprise's json:// sends no type and no data of ours."""

    def answer(self, request) -> None:  # type: ignore[no-untyped-def]
        body = request.rfile.read(int(request.headers["content-length"]))
        self.heard.append(Heard(request.path, dict(request.headers.items()), body))
        request.send_response(self.answers[0] if len(self.answers) == 1 else self.answers.pop(0))
        request.send_header("content-length", "0")
        request.end_headers()

    @property
    def apprise_url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hush"


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatListener]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    chat = ChatListener()
    yield chat
    chat.close()


@pytest.fixture
def gov(sqlite_url: str) -> Iterator[Governance]:
    gov = make_governance(sqlite_url)
    yield gov
    gov.store.close()


def settings(*urls: str) -> Settings:
    return load_settings(ACP_APPRISE_URLS=" ".join(urls), apprise_urls=" ".join(urls))


def titles(chat: ChatListener) -> list[str]:
    return [json.loads(heard.body)["title"] for heard in chat.heard]


@has_apprise
def test_an_alert_is_pushed_once_with_its_runbook(gov: Governance, chat: ChatListener) -> None:
    notify.alert(gov, "one", "budget.burn", {"percent": 80})
    assert push.push(gov, settings(chat.apprise_url)) == 1
    assert push.push(gov, settings(chat.apprise_url)) == 0
    (heard,) = chat.heard
    said = json.loads(heard.body)
    assert (said["title"], said["type"], heard.path) == ("acp: budget.burn", "warning", "/hush")
    assert said["message"].splitlines() == ["one", "percent: 80", "runbook: docs/operations.md#alert-budget-burn"]


@has_apprise
def test_what_nobody_took_is_pushed_again_and_one_of_two_is_enough(gov: Governance, chat: ChatListener) -> None:
    chat.answers = [503, 200]
    for name in ("one", "two"):
        notify.alert(gov, name, "scan.missed", {})
    with capture_logs() as logs:
        assert push.push(gov, settings(chat.apprise_url)) == 0
    assert [line["receiver"] for line in logs if line["event"] == "alert not passed on"] == ["json://***"]
    assert len(chat.heard) == 1, "whoever is away is not asked for the next one as well"
    nobody = "json://127.0.0.1:1/hush"
    with capture_logs() as logs:
        assert push.push(gov, settings(nobody, chat.apprise_url)) == 2
    assert "hush" not in str(logs)
    assert titles(chat)[1:] == ["acp: scan.missed"] * 2


@has_apprise
def test_an_alert_of_long_ago_is_not_pushed_and_nobody_pushes_twice_at_once(
    gov: Governance, chat: ChatListener
) -> None:
    notify.alert(gov, "old", "scan.missed", {})
    assert isinstance(gov.clock, ManualClock)
    gov.clock.pass_s(24 * 3600 + 1)
    assert push.push(gov, settings(chat.apprise_url)) == 0
    notify.alert(gov, "new", "scan.missed", {})
    turn = notify.take_turn(gov, 60, "acp.alerts.turn")
    assert turn is not None
    assert push.push(gov, settings(chat.apprise_url)) == 0
    notify.end_turn(gov, turn, rest_s=0)
    assert push.push(gov, settings(chat.apprise_url)) == 1
    assert len(chat.heard) == 1


def test_without_the_extra_alerts_stay_and_the_doctor_says_so(gov: Governance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    notify.alert(gov, "one", "scan.missed", {})
    with capture_logs() as logs:
        assert push.push(gov, settings("json://nowhere/hush")) == 0
    assert [line["install"] for line in logs] == ["pip install 'acp-tasks[alerts]'"]
    assert push.problem(settings("json://nowhere/hush")) == (
        "ACP_APPRISE_URLS is set and apprise is not installed: pip install 'acp-tasks[alerts]'"
    )
    assert push.problem(settings()) is None
    assert push.push(gov, settings()) == 0


@has_apprise
def test_the_doctor_names_a_url_that_is_none_without_its_key(terminal: Terminal, desk: Desk) -> None:
    ran = terminal.acp("doctor", "--json", ACP_APPRISE_URLS="json://127.0.0.1/hush carrier-pigeon://hush")
    (check,) = (check for check in ran.json["checks"] if check["name"] == "alerts")
    assert (ran.code, check["status"]) == (5, "fail")
    assert "carrier-pigeon://***" in check["detail"]
    assert "hush" not in ran.out.replace(":hush@", "")
    assert ran.json["settings"]["apprise_urls"] == "json://*** carrier-pigeon://***"
    fine = terminal.acp("doctor", "--json", ACP_APPRISE_URLS="json://127.0.0.1/hush")
    assert {check["name"]: check["status"] for check in fine.json["checks"]}["alerts"] == "ok"


@pytest.mark.fleet
def test_a_workers_heart_tells_that_beat_has_stopped(
    database_url: str, tmp_path: Path, broker_url: str, chat: ChatListener
) -> None:
    listener = Listener()
    shop = Shop(
        tmp_path,
        database_url,
        broker_url,
        ACP_WEBHOOK_URL=listener.url,
        ACP_WEBHOOK_SECRET=SECRET,
        ACP_ALERT_BEAT_S="6",
        ACP_HEARTBEAT_S="0.5",
        no_proxy="127.0.0.1",
    )

    def silent() -> list[bool]:
        return [a.standing for a in list_alerts(shop.gov, standing_only=False, limit=9) if a.kind == "beat.silent"]

    def told() -> list[str]:
        return [heard.said["data"]["alert_kind"] for heard in listener.heard]

    try:
        worker, beat = shop.worker(), shop.beat()
        other = shop.worker("other")
        worker.ready()
        other.ready()
        found = shop.gov.store.read
        for job in ("acp.alerts", "acp.scorecards"):
            finished = "SELECT 1 FROM ticks WHERE job = :job AND finished_us > 0"
            eventually(lambda job=job, sql=finished: found(sql, {"job": job}), f"a tick of {job}", 60)  # type: ignore[misc]
        assert silent() == []
        beat.kill()
        beat.wait()
        eventually(lambda: silent() == [True], "beat's silence is raised", 60)
        eventually(lambda: told() == ["beat.silent"], "the webhook hears of it without beat", 60)
        assert "beat is silent" in shop.log("w") + shop.log("other")
        shop.beat()
        eventually(lambda: silent() == [False], "it clears when beat is back", 60)
        assert told() == ["beat.silent"], "once, by whichever worker"
    finally:
        shop.close()
        listener.close()
