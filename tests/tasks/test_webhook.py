"""The webhook's sender against a real receiver on loopback: signed, repeated under one id, in order."""

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import acp_tasks.webhook as webhook
from acp_tasks.webhook import Receiver
from governance.config import signing_key
from governance.core.policy import Risk
from governance.operations import decide, notify
from tests.support.fleet import Shop, eventually
from tests.support.governed import ANN, Desk, ManualClock, make_governance
from tests.support.listener import Listener

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, or so").decode()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def desk(sqlite_url: str) -> Iterator[Desk]:
    gov = make_governance(sqlite_url)
    yield Desk(gov)
    gov.store.close()


@pytest.fixture(scope="module")
def verified() -> Callable[[Mapping[str, str], bytes, str], bool]:
    """The receiver's check as the documentation shows it."""
    code = DOCS.read_text().split("## Webhook\n")[1].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 30
    names: dict[str, Any] = {}
    exec(code, names)
    return names["verified"]  # type: ignore[no-any-return]


def to(listener: Listener, *secrets: str) -> Receiver:
    return Receiver(listener.url, tuple(map(signing_key, secrets or (SECRET,))))


def request(desk: Desk, *, approved: bool = False) -> str:
    made = desk.submit(risk=Risk.HIGH)
    if approved:
        decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    return made.action_id


def rest(desk: Desk) -> None:
    """Until the receiver has had its rest."""
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(120)


def test_the_scheme_is_the_published_one() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = webhook.signatures((key,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_verifies_what_it_gets(
    desk: Desk, listener: Listener, verified: Callable[[Mapping[str, str], bytes, str], bool]
) -> None:
    action_id = request(desk)
    assert webhook.tell(desk.gov, to(listener)) == 1
    (heard,) = listener.heard
    headers = heard.headers
    assert verified(headers, heard.body, SECRET)
    assert not verified(headers, heard.body.replace(b"high", b"low"), SECRET)
    assert not verified({**headers, "webhook-id": "another"}, heard.body, SECRET)
    assert not verified(headers, heard.body, "whsec_" + base64.b64encode(b"another").decode())
    old = str(int(headers["webhook-timestamp"]) - 3600)
    assert not verified({**headers, "webhook-timestamp": old}, heard.body, SECRET)
    assert heard.path == "/hooks/acp"
    assert headers["content-type"] == "application/json"
    assert heard.said["type"] == "approval.requested"
    assert heard.said["timestamp"] == "2027-01-15T08:00:00Z"
    assert heard.said["data"]["action_id"] == action_id


def test_two_secrets_while_one_is_replaced(
    desk: Desk, listener: Listener, verified: Callable[[Mapping[str, str], bytes, str], bool]
) -> None:
    request(desk)
    new = "whsec_" + base64.b64encode(b"the new one").decode()
    webhook.tell(desk.gov, to(listener, new, SECRET))
    headers = listener.heard[0].headers
    assert headers["webhook-signature"].count("v1,") == 2
    assert verified(headers, listener.heard[0].body, new)
    assert verified(headers, listener.heard[0].body, SECRET)


def test_a_failure_is_tried_again_under_the_same_id(desk: Desk, listener: Listener) -> None:
    listener.answers = [500, 200]
    request(desk)
    assert webhook.tell(desk.gov, to(listener)) == 1
    first, second = listener.heard
    assert first.id == second.id
    assert first.body == second.body
    assert webhook.tell(desk.gov, to(listener)) == 0
    assert len(listener.heard) == 2


def test_what_is_refused_is_dropped_and_logged(desk: Desk, listener: Listener) -> None:
    listener.answers = [400, 200]
    request(desk, approved=True)
    with capture_logs() as logs:
        assert webhook.tell(desk.gov, to(listener)) == 1
    assert listener.kinds == ["requested", "approved"]
    (refused,) = [line for line in logs if "refused" in line["event"]]
    assert refused["notice"] == listener.heard[0].id
    assert (refused["status"], refused["receiver"]) == (400, f"http://127.0.0.1:{listener.port}")
    assert not notify.anything_to_tell(desk.gov)


def test_a_receiver_that_was_away_hears_everything_in_order(desk: Desk, listener: Listener) -> None:
    listener.close()
    ids = [request(desk, approved=True) for _ in range(3)]
    with capture_logs() as logs:
        assert webhook.tell(desk.gov, to(listener)) == 0
    # One notice showed that it is away; the others were not tried.
    assert len([line for line in logs if line["event"] == "notice not told yet"]) == 1
    listener.open()
    assert webhook.tell(desk.gov, to(listener)) == 0, "it has its rest"
    rest(desk)
    assert webhook.tell(desk.gov, to(listener)) == 6
    assert listener.kinds == ["requested", "approved"] * 3
    assert [heard.said["data"]["action_id"] for heard in listener.heard] == [i for i in ids for _ in range(2)]


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_receiver_that_asks_to_wait_is_left_alone(desk: Desk, listener: Listener, status: int) -> None:
    listener.answers = [status]
    request(desk)
    request(desk)
    assert webhook.tell(desk.gov, to(listener)) == 0
    assert len({heard.id for heard in listener.heard}) == 1
    listener.answers = [200]
    rest(desk)
    assert webhook.tell(desk.gov, to(listener)) == 2


def test_a_notice_that_fails_holds_up_its_own_ticket_only(desk: Desk, listener: Listener) -> None:
    poisoned, healthy = request(desk, approved=True), request(desk, approved=True)
    listener.poisoned[poisoned] = 500
    assert webhook.tell(desk.gov, to(listener)) == 2
    heard = [(one.said["data"]["action_id"], one.kind) for one in listener.heard]
    assert (poisoned, "approval.approved") not in heard
    assert [kind for action_id, kind in heard if action_id == healthy] == ["approval.requested", "approval.approved"]
    listener.poisoned.clear()
    rest(desk)
    assert webhook.tell(desk.gov, to(listener)) == 2
    assert listener.kinds[-2:] == ["requested", "approved"]


def test_a_redirect_is_not_followed(desk: Desk, listener: Listener) -> None:
    listener.answers = [307]
    request(desk)
    with capture_logs() as logs:
        assert webhook.tell(desk.gov, to(listener)) == 0
    assert [heard.path for heard in listener.heard] == ["/hooks/acp"]
    assert "set ACP_WEBHOOK_URL to where it leads" in logs[0]["event"]
    assert notify.anything_to_tell(desk.gov)


def test_a_receiver_that_hangs_costs_one_timeout(
    desk: Desk, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(webhook, "_ATTEMPTS_S", 0.4)
    listener.answers = [0]
    request(desk)
    request(desk)
    assert webhook.tell(desk.gov, to(listener)) == 0
    assert len(listener.heard) == 1
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(1.9)
    assert webhook.tell(desk.gov, to(listener)) == 0
    assert len(listener.heard) == 1, "four times what the failure took"


def test_a_run_ends_in_time(desk: Desk, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_RUN_S", webhook._TIMEOUT_S)
    request(desk)
    assert webhook.tell(desk.gov, to(listener)) == 0
    monkeypatch.undo()
    assert webhook.tell(desk.gov, to(listener)) == 1


def test_what_happened_long_ago_is_not_told(desk: Desk, listener: Listener) -> None:
    request(desk, approved=True)
    left = request(desk)
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(24 * 3600 + 1)
    fresh = request(desk)
    with capture_logs() as logs:
        assert webhook.tell(desk.gov, to(listener)) == 1
    assert [heard.said["data"]["action_id"] for heard in listener.heard] == [fresh]
    assert left != fresh
    assert [line["notices"] for line in logs if "24 hours" in line["event"]] == [2]
    assert not notify.anything_to_tell(desk.gov)


def test_an_alert_is_told(desk: Desk, listener: Listener) -> None:
    notify.alert(desk.gov, "kill drill of May", "drill.failed", {"took_s": 31.5})
    assert webhook.tell(desk.gov, to(listener)) == 1
    assert listener.heard[0].said == {
        "type": "alert.raised",
        "timestamp": "2027-01-15T08:00:00Z",
        "data": {
            "alert_id": "kill drill of May",
            "alert_kind": "drill.failed",
            "details": {"took_s": 31.5, "runbook": "docs/operations.md#alert-drill-failed"},
        },
    }


@pytest.mark.fleet
def test_a_fleet_tells_of_a_request_and_its_decision(
    listener: Listener, sqlite_url: str, tmp_path: Path, broker_url: str
) -> None:
    shop = Shop(
        tmp_path, sqlite_url, broker_url, ACP_WEBHOOK_URL=listener.url, ACP_WEBHOOK_SECRET=SECRET, no_proxy="127.0.0.1"
    )
    try:
        worker = shop.worker()
        shop.beat()
        worker.ready()
        asked = shop.tasks.ask.delay("c1")
        eventually(lambda: listener.kinds == ["requested"], "the request was told")
        shop.approve(asked.id)
        assert asked.get(timeout=20) == 1
        eventually(lambda: listener.kinds == ["requested", "approved"], "the approval was told")
        assert listener.heard[0].said["data"]["resource"] == "customer_case:c1"
    finally:
        shop.close()
