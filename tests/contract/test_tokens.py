"""Tokens: who decides is proved, on both databases."""

import threading
from dataclasses import replace

import pytest

from governance.core.principals import Principal
from governance.errors import InvalidOption, NotAllowed, NotAuthenticated, NotFound
from governance.operations import audit
from governance.operations.principals import authenticate, create_token, list_tokens, local_token, revoke_token
from governance.store.engine import Store
from tests.support.governed import ANN, Desk

ROOT = Principal("root", frozenset({"admin"}))


def test_a_token_proves_who_presents_it(desk: Desk) -> None:
    create_token(desk.gov, principal="root", roles=["admin"], by=None)
    made = create_token(desk.gov, principal="ann", roles=["approver:team-lead", "operator"], by=ROOT)
    assert authenticate(desk.gov, made.text) == Principal("ann", frozenset({"approver:team-lead", "operator"}))
    assert authenticate(desk.gov, f" {made.text}\n").name == "ann"


def test_the_secret_is_kept_nowhere(desk: Desk) -> None:
    made = create_token(desk.gov, principal="root", roles=["admin"], by=None)
    secret = made.text.split("_", 2)[2]
    kept = str([desk.gov.store.read(f"SELECT * FROM {table}", {}) for table in ("tokens", "events")])
    assert "root" in kept
    assert secret not in kept
    assert secret not in repr(made)


@pytest.mark.parametrize(
    "broken", ["", "acp", "acp__", "nonsense", "{text}x", "{id}", "x{text}", "acp_{id}_", "acp_{id}_no"]
)
def test_any_other_text_proves_nothing(desk: Desk, broken: str) -> None:
    made = create_token(desk.gov, principal="root", roles=["admin"], by=None)
    with pytest.raises(NotAuthenticated, match="ACP_TOKEN"):
        authenticate(desk.gov, broken.format(text=made.text, id=made.id))


def test_a_token_ends_when_it_expires_or_is_revoked(desk: Desk) -> None:
    create_token(desk.gov, principal="root", roles=["admin"], by=None)
    expires_us = desk.gov.clock.now_us() + 60_000_000
    short = create_token(desk.gov, principal="ann", roles=["approver"], by=ROOT, expires_us=expires_us)
    long = create_token(desk.gov, principal="bob", roles=["approver"], by=ROOT)
    desk.gov.clock.pass_s(60)  # type: ignore[attr-defined]
    with pytest.raises(NotAuthenticated):
        authenticate(desk.gov, short.text)
    assert revoke_token(desk.gov, long.id, by=ROOT) == "bob"
    with pytest.raises(NotAuthenticated):
        authenticate(desk.gov, long.text)
    with pytest.raises(NotFound):
        revoke_token(desk.gov, long.id, by=ROOT)
    assert {line.principal: line.state for line in list_tokens(desk.gov)} == {
        "root": "live",
        "ann": "expired",
        "bob": "revoked",
    }
    audit.seal(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_only_an_admin_gives_and_revokes_tokens(desk: Desk) -> None:
    with pytest.raises(NotAllowed, match="before there is an admin"):
        create_token(desk.gov, principal="ann", roles=["approver"], by=None)
    first = create_token(desk.gov, principal="root", roles=["admin"], by=None)
    with pytest.raises(NotAuthenticated, match="only an admin"):
        create_token(desk.gov, principal="mallory", roles=["admin"], by=None)
    with pytest.raises(NotAllowed):
        create_token(desk.gov, principal="mallory", roles=["admin"], by=ANN)
    with pytest.raises(NotAllowed):
        revoke_token(desk.gov, first.id, by=ANN)
    with pytest.raises(InvalidOption):
        create_token(desk.gov, principal="ann", roles=["king"], by=ROOT)
    assert [line.principal for line in list_tokens(desk.gov)] == ["root"]


def test_the_owner_of_a_local_stack_may_always_decide_in_it(desk: Desk) -> None:
    create_token(desk.gov, principal="root", roles=["admin"], by=None)
    assert "admin" in authenticate(desk.gov, local_token(desk.gov, "ann").text).roles


def test_of_many_first_admins_one_wins(desk: Desk) -> None:
    stores = [Store(desk.gov.store.url.render_as_string(hide_password=False)) for _ in range(8)]
    ready = threading.Barrier(len(stores))
    outcomes: list[str] = []

    def bootstrap(store: Store) -> None:
        gov = replace(desk.gov, store=store, sessions={}, policies={}, boards=[])
        ready.wait(timeout=30)
        try:
            outcomes.append(create_token(gov, principal="root", roles=["admin"], by=None).principal)
        except NotAuthenticated:
            outcomes.append("refused")

    racers = [threading.Thread(target=bootstrap, args=(store,)) for store in stores]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    for store in stores:
        store.close()
    assert sorted(outcomes) == ["refused"] * 7 + ["root"]
    assert len(list_tokens(desk.gov)) == 1
