"""It stays plain Celery: results, canvas, retries, errbacks, with members that are parked or denied."""

from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import QueueNotFound, SoftTimeLimitExceeded, TimeLimitExceeded

from governance.errors import ActionDenied, ResultNotJson
from tests.support.fleet import Shop, eventually, failure

WAIT_S = 20


def test_a_governed_task_returns_its_result(shop: Shop) -> None:
    result = shop.tasks.add.delay(1, 2)
    assert result.get(timeout=WAIT_S) == 3
    assert shop.state(result.id) == "succeeded"


def test_a_repeated_command_gives_the_first_result(shop: Shop) -> None:
    first = shop.tasks.add.apply_async((3, 4), command_id="sum-3-4")
    again = shop.tasks.add.apply_async((3, 4), command_id="sum-3-4")
    assert first.id == again.id
    assert again.get(timeout=WAIT_S) == 7


def test_a_repeated_command_in_a_canvas_gives_the_first_result_under_its_own_id(shop: Shop) -> None:
    shop.tasks.add.apply_async((5, 5), command_id="sum-5-5").get(timeout=WAIT_S)
    repeated: Any = chord(
        [shop.tasks.add.s(5, 5).set(command_id="sum-5-5"), shop.tasks.add.s(1, 1)], shop.tasks.total.s()
    )
    assert repeated.apply_async().get(timeout=WAIT_S) == 12
    assert len(shop.gov.store.read("SELECT 1 FROM actions WHERE command_id = 'sum-5-5'", {})) == 1


def test_a_repeat_in_a_canvas_is_told_when_the_first_ends_without_any_message(shop: Shop) -> None:
    first = shop.tasks.ask.apply_async(("c7", 7), command_id="ask-7")
    parked(shop, first.id)
    again = shop.tasks.ask.s("c7", 7).set(command_id="ask-7")
    outcome: Any = chord([again, shop.tasks.add.s(1, 1)], shop.tasks.total.s()).apply_async()
    eventually(
        lambda: shop.gov.store.read("SELECT 1 FROM echoes WHERE published_us IS NULL", {}), "its message is gone"
    )
    shop.approve(first.id)
    assert outcome.get(timeout=WAIT_S) == 9
    assert first.get(timeout=WAIT_S) == 7
    assert shop.gov.store.read("SELECT 1 FROM echoes", {}) == []


def test_a_message_that_celery_refuses_leaves_nothing_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.tasks.app.amqp.queues, "create_missing", False)
    with pytest.raises(QueueNotFound, match="nowhere"):
        shop.tasks.add.apply_async((1, 1), command_id="lost-1", queue="nowhere")
    found = shop.gov.store.read("SELECT state, rule FROM actions WHERE command_id = 'lost-1'", {})
    assert [tuple(row) for row in found] == [("cancelled", "not-publishable")]


def test_a_denial_is_the_failure(shop: Shop) -> None:
    error = failure(shop.tasks.never.delay())
    assert isinstance(error, ActionDenied)
    assert (error.rule, error.reason) == ("never", "too dangerous")


def test_an_error_of_the_body_is_the_failure(shop: Shop) -> None:
    result = shop.tasks.boom.apply_async(link_error=shop.tasks.noted.s())
    assert isinstance(failure(result), ValueError)
    eventually(lambda: f"errback {result.id} ValueError" in shop.effects(), "the errback ran")
    assert shop.state(result.id) == "failed"


def test_a_retry_runs_as_another_attempt(shop: Shop) -> None:
    assert shop.tasks.flaky.delay(2).get(timeout=WAIT_S) == [2, 3]


def test_chain_group_and_chord(shop: Shop) -> None:
    add, total = shop.tasks.add, shop.tasks.total
    assert chain(add.s(1, 1), add.s(10), add.s(100)).apply_async().get(timeout=WAIT_S) == 112
    assert group(add.s(n, n) for n in range(4)).apply_async().get(timeout=WAIT_S) == [0, 2, 4, 6]
    assert chord((add.s(n, n) for n in range(4)), total.s()).apply_async().get(timeout=WAIT_S) == 12


def parked(shop: Shop, action_id: str) -> str:
    shop.until(action_id, "parked")
    result = shop.tasks.app.AsyncResult(action_id)
    eventually(lambda: result.state == "AWAITING_APPROVAL", f"{action_id} shows that it waits")
    return action_id


def test_a_chain_goes_on_after_approval(shop: Shop) -> None:
    result: Any = chain(shop.tasks.ask.s("c1", 5), shop.tasks.add.s(10)).apply_async()
    shop.approve(parked(shop, result.parent.id))
    assert result.get(timeout=WAIT_S) == 15


def test_a_chord_completes_after_approval_of_members_and_body(shop: Shop) -> None:
    ask, add = shop.tasks.ask, shop.tasks.add
    result: Any = chord([ask.s("c1", 5), ask.s("c2", 6), add.s(1, 1)], ask.s(number=7)).apply_async()
    for member in result.parent.results[:2]:
        shop.approve(parked(shop, member.id))
    shop.approve(parked(shop, result.id))
    assert result.get(timeout=WAIT_S) == 7


def test_a_group_completes_after_approval(shop: Shop) -> None:
    result: Any = group(shop.tasks.ask.s("c1", 5), shop.tasks.add.s(1, 1)).apply_async()
    shop.approve(parked(shop, result.results[0].id))
    assert result.get(timeout=WAIT_S) == [5, 2]


def test_a_denied_member_fails_its_chain_and_calls_the_errback(shop: Shop) -> None:
    result: Any = chain(shop.tasks.ask.s("c1").set(link_error=shop.tasks.noted.s()), shop.tasks.add.s(1)).apply_async()
    shop.deny(parked(shop, result.parent.id), "not today")
    error = failure(result.parent)
    assert isinstance(error, ActionDenied)
    assert error.reason == "not today"
    eventually(lambda: f"errback {result.parent.id} ActionDenied" in shop.effects(), "the errback ran")


def test_a_denied_member_fails_its_chord(shop: Shop) -> None:
    result: Any = chord([shop.tasks.ask.s("c1"), shop.tasks.never.s(), shop.tasks.add.s(1, 1)], shop.tasks.total.s())
    sent: Any = result.apply_async()
    shop.deny(parked(shop, sent.parent.results[0].id))
    assert "denied" in str(failure(sent))


def test_links_are_called_after_approval(shop: Shop) -> None:
    result = shop.tasks.ask.apply_async(("c9", 5), link=shop.tasks.add.s(1))
    shop.approve(parked(shop, result.id))
    assert result.get(timeout=WAIT_S) == 5
    linked = eventually(lambda: result.children, "the link was called")[0]
    assert linked.get(timeout=WAIT_S) == 6


def test_what_a_call_leaves_out_is_inherited_along_a_chain(shop: Shop) -> None:
    identity = {"user": "u1", "team": "t1", "org": "o1"}
    first = shop.tasks.add.s(1, 1).set(stream="small", agent_id="desk-1", identity=identity)
    result: Any = chain(first, shop.tasks.add.s(1)).apply_async()
    assert result.get(timeout=WAIT_S) == 3
    rows = shop.gov.store.read(
        """SELECT stream, agent_id, "user", team, org, correlation_id FROM actions WHERE id IN (:a, :b)""",
        {"a": result.parent.id, "b": result.id},
    )
    assert len(rows) == 2
    assert {tuple(row) for row in rows} == {("small", "desk-1", "u1", "t1", "o1", result.parent.id)}


def test_an_action_made_inside_another_inherits_its_correlation(shop: Shop) -> None:
    outer = shop.tasks.inherits.apply_async(agent_id="desk-2")
    inner = outer.get(timeout=WAIT_S)
    rows = shop.gov.store.read(
        "SELECT DISTINCT agent_id, correlation_id FROM actions WHERE id IN (:a, :b)", {"a": outer.id, "b": inner}
    )
    assert [tuple(row) for row in rows] == [("desk-2", outer.id)]


def test_the_hard_time_limit_fails_an_action(shop: Shop) -> None:
    result = shop.tasks.hangs.delay()
    assert isinstance(failure(result), TimeLimitExceeded)
    shop.until(result.id, "failed")


def test_the_soft_time_limit_fails_an_action_and_charges_what_it_held(shop: Shop) -> None:
    result = shop.tasks.overtime.apply_async(cost_usd="0.005")
    assert isinstance(failure(result), SoftTimeLimitExceeded)
    assert shop.state(result.id) == "failed"
    posted = shop.gov.store.read(
        "SELECT flag FROM entries WHERE action_id = :id AND posted_delta = 5000 AND kind = 'post'", {"id": result.id}
    )
    assert [row[0] for row in posted] == ["unreported"]


def test_text_that_no_database_keeps_does_not_leave_an_attempt_behind(shop: Shop) -> None:
    returned = shop.tasks.odd.delay({}, "return")
    assert returned.get(timeout=WAIT_S) == "half a pair \ud83d"
    raised = shop.tasks.odd.delay({}, "raise")
    assert isinstance(failure(raised), ValueError)
    assert [shop.state(result.id) for result in (returned, raised)] == ["succeeded", "failed"]


def test_keys_that_json_turns_into_strings_do_not_lose_an_action(shop: Shop) -> None:
    result = shop.tasks.odd.delay({"sizes": {2: 1, 10: 2}}, "return")
    assert result.get(timeout=WAIT_S)


def test_a_terminated_action_ends(shop: Shop) -> None:
    nowhere = shop.folder / "nobody-says-go"
    nowhere.mkdir(exist_ok=True)
    result = shop.tasks.waits.delay(str(nowhere))
    shop.until(result.id, "running")
    shop.tasks.app.control.revoke(result.id, terminate=True, signal="SIGKILL")
    shop.until(result.id, "failed")
    assert shop.gov.store.read("SELECT 1 FROM accounts WHERE held < 0", {}) == []


def test_a_revoked_action_is_denied(shop: Shop) -> None:
    result = shop.tasks.add.apply_async((1, 1), countdown=2)
    shop.tasks.app.control.revoke(result.id)
    shop.until(result.id, "denied")


def test_a_result_that_is_not_json_is_named(shop: Shop) -> None:
    result = shop.tasks.not_json.delay()
    error = failure(result)
    assert isinstance(error, ResultNotJson)
    assert "t.not_json returned a object, which is not JSON" in str(error)
    assert shop.state(result.id) == "failed"
