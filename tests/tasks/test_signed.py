"""Workers with keys take what a known producer signed, whichever way it travels, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord

from acp_tasks.edit import edit
from acp_tasks.message import arguments_json, digest
from acp_tasks.publish import deliver
from acp_tasks.signature import signed
from governance.core.signing import Keyring
from governance.errors import ActionDenied, ArgumentsTooLarge, InvalidOption
from governance.operations import decide, reports
from tests.support.fleet import Shop, assert_intact, failure, settle
from tests.support.governed import ANN

WAIT_S = 20
SECRETS = {"k2": "the-second-secret-of-all", "k1": "the-first-secret-of-all"}
OLD = Keyring({"k1": SECRETS["k1"].encode()})


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, broker_address: str) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("signed")
    keys = " ".join(f"{key}:{secret}" for key, secret in SECRETS.items())
    shop = Shop(folder, f"sqlite:///{folder / 'governance.db'}", broker_address, ACP_SIGNING_KEYS=keys)
    try:
        shop.worker().ready()
        shop.beat()
        yield shop
    finally:
        shop.close()


def header(args: list[Any], *, keyring: Keyring = OLD, **asked: Any) -> dict[str, Any]:
    """What a producer in another language puts into the header."""
    arguments = digest("t.effect", arguments_json("t.effect", args, {}, 10_000))
    return {"acp": signed(keyring, "t.effect", arguments, asked, {})}


def refused(shop: Shop, result: Any, says: str) -> None:
    error = failure(result)
    assert isinstance(error, ActionDenied)
    assert error.rule == "signature"
    assert says in error.reason
    assert shop.state(result.id) is None, "nothing is taken over from what is not signed"
    found = shop.gov.store.read(
        """SELECT a.state, a.rule, e.kind FROM actions a JOIN events e ON e.action_id = a.id
            WHERE a.reason LIKE :about""",
        {"about": f"message {result.id} of %"},
    )
    assert [tuple(row) for row in found] == [("denied", "signature", "action.submitted")]


def test_what_is_signed_runs_whichever_way_it_travels(signing: Shop) -> None:
    tasks = signing.tasks
    assert tasks.add.delay(1, 2).get(timeout=WAIT_S) == 3
    assert chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4)).delay().get(timeout=WAIT_S) == 10
    assert chord([tasks.add.s(1, 2), tasks.add.s(3, 4)], tasks.total.s()).delay().get(timeout=WAIT_S) == 10
    assert (
        chain(tasks.add.s(1, 1), chord([tasks.add.s(1), tasks.add.s(2)], tasks.total.s())).delay().get(timeout=WAIT_S)
        == 7
    )
    assert tasks.add.starmap([(1, 2), (3, 4)]).delay().get(timeout=WAIT_S) == [3, 7]
    assert tasks.flaky.delay(2).get(timeout=WAIT_S) == [2, 3]
    linked = tasks.add.apply_async((1, 2), link=tasks.add.s(10))
    assert linked.get(timeout=WAIT_S) == 3
    assert linked.children[0].get(timeout=WAIT_S) == 13
    assert signing.tasks.inherits.delay().get(timeout=WAIT_S)
    asked = tasks.ask.delay("c1", number=5)
    signing.until(asked.id, "parked")
    line = reports.find_ticket(signing.gov, asked.id)
    edited = edit(tasks.app, line.message, line.resource, '[["c2"], {"number": 4}]', bytes_max=10_000)
    decide.approve(signing.gov, asked.id, by=ANN, reason="less", edit=edited.arguments)
    deliver(tasks.app, signing.gov, asked.id)
    assert asked.get(timeout=WAIT_S) == 4


def test_what_nobody_submitted_runs_when_it_is_signed_by_a_key_that_is_still_known(signing: Shop) -> None:
    send = signing.tasks.app.send_task
    folder = str(signing.folder)
    good = header([folder], command_id="from-go", identity={"org": "o1"})
    assert send("t.effect", (folder,), headers=good).get(timeout=WAIT_S) == 1
    again = send("t.effect", (folder,), headers=good)
    assert again.get(timeout=WAIT_S) == 1, "sent again, it has the first one's outcome"
    assert signing.effects().count("from-go 1") == 1

    refused(signing, send("t.effect", (folder,)), "it is not signed")
    other = {"acp": {**good["acp"], "identity": {"org": "o2"}}}
    refused(signing, send("t.effect", (folder,), headers=other), "not what the key k1 signed")
    refused(signing, send("t.effect", ("elsewhere",), headers=good), "arguments are not those that were signed")
    refused(signing, send("t.effect", (folder,), headers=header([folder])), "covers no command_id")
    stranger = header([folder], keyring=Keyring({"k9": b"a stranger's"}), command_id="x1")
    refused(signing, send("t.effect", (folder,), headers=stranger), "signed by the key 'k9', which is not known")
    guess = header([folder], keyring=Keyring({"k1": b"a guess"}), command_id="x2")
    refused(signing, send("t.effect", (folder,), headers=guess), "not what the key k1 signed")
    assert len(signing.effects()) == 1


def test_a_signed_message_hands_on_what_was_signed_with_it(signing: Shop) -> None:
    """A callback that somebody hung onto it would otherwise be submitted, and signed, by the worker."""
    send, before = signing.tasks.app.send_task, signing.effects()
    folder = str(signing.folder)
    evil = signing.tasks.idempotent_effect.si(folder)
    for hung in ({"link": evil}, {"link_error": evil}, {"chain": [evil]}):
        forged = header([folder], command_id=f"hung-{next(iter(hung))}")
        refused(signing, send("t.effect", (folder,), headers=forged, **hung), "what it hands on, was changed")
    for header_or_arguments in ({"headers": {"acp": "root"}}, {"args": ("x" * 300_000,)}):
        error = failure(send("t.effect", link_error=evil, **header_or_arguments))
        assert isinstance(error, InvalidOption | ArgumentsTooLarge)
    refused(signing, send("celery.starmap", (dict(evil), [(folder,)])), "it is not signed")
    # A task outside governance runs, and hands on nothing.
    assert isinstance(failure(send("t.noted", link_error=evil)), TypeError)
    # Everything above would have been published before this one is.
    signing.tasks.add.delay(1, 1).get(timeout=WAIT_S)
    assert signing.effects() == before


def test_a_row_that_was_changed_meanwhile_does_not_run(signing: Shop) -> None:
    asked = signing.tasks.ask.apply_async(("c1",), identity={"user": "u1"})
    signing.until(asked.id, "parked")
    signing.gov.store.run("""UPDATE actions SET "user" = 'u2' WHERE id = :id""", {"id": asked.id})
    signing.approve(asked.id)
    error = failure(asked)
    assert isinstance(error, ActionDenied)
    assert (error.rule, error.reason) == ("signature", "it is not what the key k2 signed: its record was changed")
    # Told once more by the relay, if the worker's word that it waits came after the decision.
    settle(signing)
    assert_intact(signing)
