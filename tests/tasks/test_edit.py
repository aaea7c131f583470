"""Edited arguments on real workers: what an approver puts in place is what runs, and what its rules look at."""

import json
from datetime import UTC, datetime

import pytest
from celery import Celery

from acp_tasks.arrival import call_of
from acp_tasks.edit import edit
from acp_tasks.message import pack
from acp_tasks.publish import deliver
from governance.errors import InvalidOption, ResourceTemplateInvalid
from governance.operations import decide, reports
from tests.support.fleet import Shop, assert_intact, settled
from tests.support.governed import ANN

BYTES_MAX = 10_000


def test_what_the_approver_puts_in_place_runs(shop: Shop) -> None:
    result = shop.tasks.ask.delay("c1", number=5)
    shop.until(result.id, "parked")
    asked = reports.find_ticket(shop.gov, result.id)
    edited = edit(shop.tasks.app, asked.message, asked.resource, '[["c2"], {"number": 4}]', bytes_max=BYTES_MAX)
    assert edited.checked
    decide.approve(shop.gov, result.id, by=ANN, reason="less", edit=edited.arguments)
    deliver(shop.tasks.app, shop.gov, result.id)
    assert result.get(timeout=20) == 4
    found = shop.gov.store.read("SELECT resource, attempt FROM actions WHERE id = :id", {"id": result.id})[0]
    assert tuple(found) == ("customer_case:c2", 1)
    assert settled(shop)
    assert_intact(shop)


def test_an_app_without_the_task_leaves_the_resource_to_the_worker(shop: Shop) -> None:
    message = pack("t.ask", '[["c1"],{}]', {"headers": {"acp": {"stream": "small"}}})
    edited = edit(Celery("stranger"), message, "customer_case:c1", '[["c2"], {}]', bytes_max=BYTES_MAX)
    assert not edited.checked
    assert edited.arguments.resource == "customer_case:c1"
    header = json.loads(edited.arguments.message)["options"]["headers"]["acp"]
    assert header == {"stream": "small"}

    def touched(header: dict[str, object], *args: str) -> str | None:
        call = call_of(shop.tasks.ask, "some-id", header, args, {}, redelivered=False)
        resource: str | None = call.arrival.resource
        return resource

    assert touched(header, "c2") == "customer_case:c2"
    assert touched(header) is None, "the recorded one counts when the arguments do not say"


def test_a_typed_value_has_the_digest_that_the_worker_computes(shop: Shop) -> None:
    when = datetime(2027, 1, 15, tzinfo=UTC)
    message = pack("t.ask", '[["c1"],{}]', {})
    given = '{"number": {"__type__": "datetime", "__value__": "2027-01-15T00:00:00Z"}}'
    edited = edit(shop.tasks.app, message, None, given, bytes_max=BYTES_MAX)
    call = call_of(shop.tasks.ask, "some-id", {}, ("c1",), {"number": when}, redelivered=False)
    assert call.arrival.digest == edited.arguments.digest


def test_what_the_task_does_not_take_is_refused(shop: Shop) -> None:
    message = pack("t.ask", '[["c1"],{}]', {})
    for text in ('{"case_id": "c2"}', '{"amount": 1}', '[["a", 1, 2], {}]'):
        with pytest.raises(InvalidOption, match=r"what t\.ask takes"):
            edit(shop.tasks.app, message, None, text, bytes_max=BYTES_MAX)
    with pytest.raises(ResourceTemplateInvalid):
        edit(shop.tasks.app, pack("t.templated", '[["c1"],{}]', {}), None, '[["x"], {}]', bytes_max=BYTES_MAX)
