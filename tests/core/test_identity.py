"""Identity is resolved upward: what is left out is filled in, what contradicts the directory is refused."""

import pytest

from governance.core.identity import (
    Identity,
    Membership,
    Part,
    Resolved,
    claimed_of,
    filled_text,
    missing,
    parse_filled,
    refusal,
    resolve,
)

TEAM, ORG = Part.TEAM, Part.ORG
KNOWN = Membership("t1", "o1")


@pytest.mark.parametrize(
    ("claimed", "known", "charged", "filled"),
    [
        (Identity("u1"), KNOWN, Identity("u1", "t1", "o1"), {TEAM, ORG}),
        (Identity("u1", org="o1"), KNOWN, Identity("u1", "t1", "o1"), {TEAM}),
        (Identity("u1", "t1", "o1"), KNOWN, Identity("u1", "t1", "o1"), set()),
        (Identity(team="t1"), Membership(None, "o1"), Identity(None, "t1", "o1"), {ORG}),
        (Identity("u9", "t9", "o9"), Membership(), Identity("u9", "t9", "o9"), set()),
        (Identity(), Membership(), Identity(), set()),
        # The org of a team that is not claimed any more says nothing.
        (Identity("u9"), Membership(None, "o1"), Identity("u9"), set()),
    ],
)
def test_what_is_left_out_is_filled_in(
    claimed: Identity, known: Membership, charged: Identity, filled: set[Part]
) -> None:
    resolved = resolve(claimed, known)
    assert resolved == Resolved(charged, frozenset(filled))
    assert claimed_of(resolved.identity, resolved.filled) == claimed
    assert parse_filled(filled_text(resolved.filled)) == filled


@pytest.mark.parametrize(
    ("claimed", "says"),
    [
        (Identity("u1", "t2"), "user u1 belongs to team t1 by the directory, and the action says team t2"),
        (Identity("u1", "t1", "o2"), "team t1 belongs to org o1 by the directory, and the action says org o2"),
        (Identity("u1", None, "o2"), "team t1 belongs to org o1"),
    ],
)
def test_what_contradicts_the_directory_is_refused(claimed: Identity, says: str) -> None:
    resolved = resolve(claimed, KNOWN)
    assert resolved.identity == claimed
    refused = refusal(resolved, ())
    assert refused is not None
    assert refused[0] == "identity:contradiction"
    assert says in refused[1]


def test_what_is_required_and_known_to_nobody_is_refused() -> None:
    assert refusal(resolve(Identity("u1"), KNOWN), [Part.ORG, Part.USER]) is None
    refused = refusal(resolve(Identity("u9"), Membership()), [Part.ORG, Part.TEAM])
    assert refused == (
        "identity:missing",
        "the policy requires a team and an org, and neither user u9 nor the directory says which: name it in identity",
    )
    refused = refusal(resolve(Identity(), Membership()), [Part.USER])
    assert refused is not None
    assert "requires a user, and neither the action nor the directory" in refused[1]
    assert missing(Identity(), Part) == (Part.USER, Part.TEAM, Part.ORG)
