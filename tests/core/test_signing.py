"""A signature covers all that governance goes by; another's key, and any change, is found."""

from dataclasses import fields, replace
from typing import Any

import pytest

from governance.core.identity import Identity
from governance.core.signing import Keyring, Signable, problem, sign
from governance.core.tickets import Ticket, TicketState

OLD, NEW = Keyring({"k1": b"one"}), Keyring({"k2": b"two", "k1": b"one"})
WHAT = Signable(
    *(
        "a1",
        "c1",
        "case.refund",
        "support",
        "desk",
        Identity("u1", None, "o1"),
        "high",
        False,
        False,
        "gpt",
        5,
        7,
        "a1",
    ),
    *("digest", "case:1", "{}"),
)
OTHERS = {str: "other", bool: True, int: 9, Identity: Identity("u2", None, "o1"), type(None): "o"}


@pytest.mark.parametrize("name", [field.name for field in fields(Signable)])
def test_any_change_is_found(name: str) -> None:
    signature = sign(NEW, WHAT)
    assert problem(NEW, signature, WHAT, None) is None
    other: Any = OTHERS[type(getattr(WHAT, name))]
    changed = replace(WHAT, **{name: other})
    assert problem(NEW, signature, changed, None) is not None


def test_a_known_key_counts_and_any_other_does_not() -> None:
    assert sign(NEW, WHAT).startswith("k2|")
    assert problem(NEW, sign(OLD, WHAT), WHAT, None) is None
    assert problem(OLD, sign(NEW, WHAT), WHAT, None) == "it is signed by the key 'k2', which is not known here"
    forged = sign(Keyring({"k2": b"guess"}), WHAT)
    assert problem(NEW, forged, WHAT, None) == "it is not what the key k2 signed: its record was changed"
    assert problem(NEW, None, WHAT, None) == "nobody signed it"
    assert problem(NEW, "k2|x", WHAT, None) == "its signature cannot be read"
    assert "one" not in repr(OLD)


def test_a_decision_is_the_authority_for_other_arguments_and_for_nothing_else() -> None:
    signature = sign(NEW, WHAT)
    edited = replace(WHAT, digest="edited", message="{other}", resource="case:2")
    ticket = Ticket("t", TicketState.APPROVED, "edited", "rule", "policy", "chain", 2)
    assert problem(NEW, signature, edited, ticket) is None
    assert problem(NEW, signature, edited, None) is not None
    assert problem(NEW, signature, edited, replace(ticket, state=TicketState.PENDING)) is not None
    assert problem(NEW, signature, edited, replace(ticket, digest="another")) is not None
    assert problem(NEW, signature, replace(edited, cost_micros=6), ticket) is not None
    assert problem(NEW, signature, replace(WHAT, message="{other}"), replace(ticket, digest="digest")) is not None
