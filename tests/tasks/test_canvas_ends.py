"""Canvas members that nobody answers for, or that a kill switch ends, fail cleanly: results, chords, errbacks."""

from typing import Any

from celery import chain, chord, group

from acp_tasks.stop import stop
from governance.core.switches import Mode, Scope
from governance.errors import ActionCancelled, ActionDenied
from governance.operations import clearing
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN


def expire(shop: Shop, action_id: str) -> None:
    """Lets the time of its request pass; beat's sweep does the rest."""
    shop.until(action_id, "parked")
    shop.gov.store.run(
        "UPDATE tickets SET due_us = requested_us + 1, expires_us = requested_us + 1 WHERE action_id = :id",
        {"id": action_id},
    )


def errback_ran(shop: Shop, action_id: str, error: str) -> None:
    eventually(lambda: f"errback {action_id} {error}" in shop.effects(), "the errback ran")


def test_an_expired_member_fails_its_chain_and_calls_the_errback(shop: Shop) -> None:
    ask, add, noted = shop.tasks.ask, shop.tasks.add, shop.tasks.noted
    result: Any = chain(ask.s("c1").set(link_error=noted.s()), add.s(1)).apply_async()
    expire(shop, result.parent.id)
    error = failure(result.parent)
    assert isinstance(error, ActionDenied)
    assert error.reason == "nobody answered in time, so it is denied"
    errback_ran(shop, result.parent.id, "ActionDenied")


def test_an_expired_member_fails_its_group_and_its_chord(shop: Shop) -> None:
    ask, add, total, noted = shop.tasks.ask, shop.tasks.add, shop.tasks.total, shop.tasks.noted
    together: Any = group(ask.s("c1"), add.s(1, 1)).apply_async()
    expire(shop, together.results[0].id)
    assert isinstance(failure(together.results[0]), ActionDenied)
    assert together.results[1].get(timeout=20) == 2
    sent: Any = chord([ask.s("c1"), add.s(1, 1)], total.s().on_error(noted.s())).apply_async()
    expire(shop, sent.parent.results[0].id)
    assert "nobody answered" in str(failure(sent))
    errback_ran(shop, sent.id, "ChordError")


def test_a_denied_member_fails_its_chord_and_calls_the_errback(shop: Shop) -> None:
    ask, add, total, noted = shop.tasks.ask, shop.tasks.add, shop.tasks.total, shop.tasks.noted
    sent: Any = chord([ask.s("c1").set(link_error=noted.s()), add.s(1, 1)], total.s().on_error(noted.s())).apply_async()
    member = sent.parent.results[0]
    shop.until(member.id, "parked")
    shop.deny(member.id, "not this one")
    assert "not this one" in str(failure(sent))
    assert isinstance(failure(member), ActionDenied)
    errback_ran(shop, member.id, "ActionDenied")
    errback_ran(shop, sent.id, "ChordError")


def test_a_cancelled_member_fails_its_chain_its_chord_and_calls_the_errback(shop: Shop) -> None:
    ask, add, total, noted = shop.tasks.ask, shop.tasks.add, shop.tasks.total, shop.tasks.noted
    linked: Any = chain(
        ask.s("c1").set(link_error=noted.s(), agent_id="rogue"), add.s(1).set(agent_id="rogue")
    ).apply_async()
    sent: Any = chord([ask.s("c2").set(agent_id="rogue"), add.s(1, 1)], total.s()).apply_async()
    for parked in (linked.parent, sent.parent.results[0]):
        shop.until(parked.id, "parked")
    report = stop(
        shop.tasks.app, shop.gov, Scope.AGENT, "rogue", mode=Mode.KILL, reason="it went wild", by=ANN, grace_s=5
    )
    assert report.cancelled == 2
    error = failure(linked.parent)
    assert isinstance(error, ActionCancelled)
    assert (error.rule, error.reason) == ("switch:agent:rogue", "it went wild")
    errback_ran(shop, linked.parent.id, "ActionCancelled")
    assert "it went wild" in str(failure(sent))
    clearing.release(shop.gov, report.switch_id, reason="over", by=ANN)
