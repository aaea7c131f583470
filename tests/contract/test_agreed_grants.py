"""Grants with a quorum: what stands for as many people's click takes as many people."""

import json
from typing import Any

import pytest

from governance.core.actions import Submission
from governance.core.grants import GrantTerms
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.errors import InvalidOption
from governance.operations import audit, decide, grants
from governance.operations.decide import EditedArguments
from tests.support import books
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance

HOUR_US = 3_600_000_000


def ask(desk: Desk) -> Submission:
    return desk.submit(risk=Risk.HIGH, agent_id="desk-1", user="u1")


def test_a_grant_takes_as_many_people_as_the_approval_that_it_is_given_with(database_url: str) -> None:
    two = POLICY.replace("approval: {timeout: 15m}", "approval: {timeout: 15m, approvals: 2}")
    desk = Desk(make_governance(database_url, policy=two))
    now_us = desk.gov.clock.now_us()
    early, late = (GrantTerms(until_us=now_us + hours * HOUR_US, max_uses=2) for hours in (1, 2))

    def approve(made: Submission, by: Principal, terms: GrantTerms | None, **options: Any) -> str | None:
        return decide.approve(desk.gov, made.action_id, by=by, reason="fine", grant=terms, **options).grant_id

    made = [ask(desk) for _ in range(4)]
    for one, first in ((made[0], None), (made[1], GrantTerms(for_session=True))):
        assert approve(one, ANN, first) is None
        with pytest.raises(InvalidOption, match=f"ann asked for {first or 'no grant'}"):
            approve(one, BOB, late)
        assert desk.state(one) == "parked"
        assert approve(one, BOB, None) is None, "one person's wish is no grant"
        assert desk.state(one) == "queued"
    assert approve(made[2], ANN, early) is None
    edit = EditedArguments(made[2].message, "other-digest", None)
    assert approve(made[2], BOB, late, edit=edit) is None, "a wish was about other arguments as well"
    with pytest.raises(InvalidOption, match="bob asked for a grant 2 uses, until 2027-01-15T10:00:00Z"):
        approve(made[2], ANN, GrantTerms(until_us=late.until_us, max_uses=3), seen="other-digest")
    assert approve(made[2], ANN, early, seen="other-digest") is not None
    (line,) = grants.list_grants(desk.gov, everything=True, limit=9)
    assert (line.max_uses, line.until_us) == (2, early.until_us), "of two ends the earlier one"
    voted = desk.gov.store.read("SELECT payload FROM events WHERE kind = 'ticket.voted' ORDER BY id", {})
    assert [bool(json.loads(row[0]).get("grant")) for row in voted] == [False, True, True, True]
    assert desk.state(ask(desk)) == "queued"

    soon = GrantTerms(until_us=now_us + 1, max_uses=2)
    assert approve(made[3], ANN, soon) is None
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(1)
    with pytest.raises(InvalidOption, match="an instant to come"):
        approve(made[3], BOB, late)
    assert desk.state(made[3]) == "parked"
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()
    desk.gov.store.close()
