"""Standing approvals: used as often and for as much as was given, by those they were given for, and by nobody else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.clock import SystemClock
from governance.core.actions import Submission
from governance.core.grants import GrantTerms, UseGrant, Wanted
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.errors import InvalidOption, NotAllowed, NotFound, StateConflict
from governance.operations import audit, decide, grants, snapshots
from governance.operations.answers import Admitted, Denied, Parked
from governance.operations.context import Governance
from governance.operations.finish import AskedToRetry
from governance.operations.recover import child_gone
from governance.store.schema.decisions import grants as table
from tests.support import books
from tests.support.governed import ANN, LEASE, POLICY, Desk, ManualClock, make_governance
from tests.support.racer import RACERS, race

HOUR_US = 3_600_000_000
WHO: dict[str, Any] = {"risk": Risk.HIGH, "agent_id": "desk-1", "user": "u1", "resource": "case:c1"}


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def give(desk: Desk, *, asked: Submission | None = None, **terms: Any) -> str:
    """A grant for an hour unless `terms` say otherwise, given with the approval of `asked`, or of one more."""
    if not terms.get("for_session"):
        terms.setdefault("until_us", desk.gov.clock.now_us() + HOUR_US)
    asked = asked or ask(desk)
    decided = decide.approve(desk.gov, asked.action_id, by=ANN, reason="fine", grant=GrantTerms(**terms))
    assert decided.grant_id is not None
    return decided.grant_id


def ask(desk: Desk, **changes: Any) -> Submission:
    return desk.submit(**{**WHO, **changes})


def used(desk: Desk, grant_id: str) -> tuple[int, int]:
    found = desk.gov.store.read("SELECT uses, cost_micros FROM grants WHERE id = :id", {"id": grant_id})
    return int(found[0][0]), int(found[0][1])


def in_order(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def deliver(url: str, folder: Path, made: list[Submission]) -> dict[str, int]:
    messages = [str(folder), *(f"{one.stream}/{one.action_id}" for one in made)]
    return dict(race(url, "deliver", " ".join(messages), RACERS))


def test_eight_racers_use_a_grant_exactly_as_often_as_it_was_given(
    racing: Desk, database_url: str, tmp_path: Path
) -> None:
    grant = give(racing, max_uses=5)
    made = [ask(racing) for _ in range(40)]
    assert {racing.state(one) for one in made} == {"queued"}, "who gets it is decided by the admission"
    assert deliver(database_url, tmp_path, made) == {"Admitted": 5, "Parked": 35}
    assert used(racing, grant) == (5, 5000)
    running = racing.gov.store.read(
        "SELECT count(*) FROM actions WHERE state = 'running' AND grant_id = :id", {"id": grant}
    )
    assert running[0][0] == 5
    assert racing.state(ask(racing)) == "parked", "nobody is queued for a grant that is used up"
    in_order(racing)


def test_eight_racers_spend_no_more_under_a_grant_than_it_allows(
    racing: Desk, database_url: str, tmp_path: Path
) -> None:
    grant = give(racing, max_cost_micros=20_000)
    made = [ask(racing, cost_micros=cost) for _ in range(8) for cost in (3000, 4000, 1000, 2500)]
    seen = deliver(database_url, tmp_path, made)
    uses, cost = used(racing, grant)
    assert uses == seen["Admitted"]
    left = 20_000 - cost
    parked = racing.gov.store.read("SELECT min(cost_micros) FROM actions WHERE state = 'parked'", {})
    assert 0 <= left < parked[0][0], "nothing beyond the bound, and nobody parked whom it had room for"
    in_order(racing)


def test_two_grants_are_used_up_one_after_the_other(racing: Desk, database_url: str, tmp_path: Path) -> None:
    asked = [ask(racing), ask(racing)]
    older, later = (give(racing, asked=one, max_uses=uses) for one, uses in zip(asked, (3, 4), strict=True))
    made = [ask(racing) for _ in range(24)]
    assert deliver(database_url, tmp_path, made) == {"Admitted": 7, "Parked": 17}
    assert (used(racing, older)[0], used(racing, later)[0]) == (3, 4)
    in_order(racing)


@pytest.mark.parametrize(
    ("terms", "cost", "state"),
    [
        ({"max_uses": 0}, 0, "parked"),
        ({"max_cost_micros": 0}, 1, "parked"),
        ({"max_cost_micros": 0}, 0, "parked"),
        ({"max_uses": 1, "max_cost_micros": 999}, 1000, "parked"),
        ({"max_uses": 1, "max_cost_micros": 1000}, 1000, "queued"),
        ({}, 1000, "queued"),
    ],
)
def test_zero_is_nothing_and_no_bound_is_no_bound(desk: Desk, terms: dict[str, Any], cost: int, state: str) -> None:
    grant = give(desk, **terms)
    made = ask(desk, cost_micros=cost)
    assert desk.state(made) == state
    if state == "queued":
        desk.admitted(made)
        assert used(desk, grant) == (1, cost)
    in_order(desk)


def test_a_grant_is_over_at_its_end(desk: Desk) -> None:
    grant = give(desk)
    early, queued = ask(desk), ask(desk)
    clock(desk).at_us += HOUR_US - 1
    desk.admitted(early)
    clock(desk).at_us += 1
    assert isinstance(desk.arrive(queued), Parked), "queued under it, and too late"
    assert desk.state(ask(desk)) == "parked"
    assert used(desk, grant) == (1, 1000)
    assert [line.state for line in grants.list_grants(desk.gov, everything=True, limit=9)] == ["over"]
    in_order(desk)


def test_a_grant_for_the_session_is_not_carried_into_the_next_window(desk: Desk) -> None:
    grant = give(desk, for_session=True)
    first, carried = ask(desk), ask(desk)
    desk.admitted(first)
    assert desk.state(ask(desk, stream="small")) == "parked", "nor is it for the session of another stream"
    clock(desk).pass_s(3600)
    assert isinstance(desk.arrive(carried), Parked)
    assert desk.state(ask(desk)) == "parked"
    assert used(desk, grant)[0] == 1
    in_order(desk)


def test_a_revoked_grant_is_used_no_more(desk: Desk) -> None:
    grant = give(desk)
    runs, queued = ask(desk), ask(desk)
    run = desk.admitted(runs)
    with pytest.raises(InvalidOption, match="a sentence"):
        grants.revoke(desk.gov, grant, by=ANN, reason=" ")
    grants.revoke(desk.gov, grant, by=ANN, reason="the project is over")
    with pytest.raises(StateConflict, match="revoked again"):
        grants.revoke(desk.gov, grant, by=ANN, reason="again")
    with pytest.raises(NotFound):
        grants.revoke(desk.gov, "nope", by=ANN, reason="again")
    assert isinstance(desk.arrive(queued), Parked)
    assert desk.state(ask(desk)) == "parked"
    desk.finish(run, AskedToRetry("flaky", desk.gov.clock.now_us()))
    assert isinstance(desk.arrive(runs), Parked), "nor by another attempt of what used it"
    in_order(desk)


def test_a_grant_that_is_revoked_between_the_look_and_the_admission_is_not_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = give(desk)
    queued = ask(desk)

    def revoked_meanwhile(gov: Governance, wanted: Wanted, used_before: str | None) -> UseGrant | None:
        found = grants.find_grant(gov, wanted, used_before)
        monkeypatch.undo()
        grants.revoke(gov, grant, by=ANN, reason="the project is over")
        return found

    monkeypatch.setattr(snapshots, "find_grant", revoked_meanwhile)
    assert isinstance(desk.arrive(queued), Parked)
    assert used(desk, grant) == (0, 0)
    in_order(desk)


@pytest.mark.parametrize(
    "other",
    [
        {"agent_id": "desk-2"},
        {"agent_id": None},
        {"user": "u2"},
        {"user": None},
        {"resource": "case:c2"},
        {"resource": None},
        {"name": "case.refund"},
    ],
)
def test_a_grant_is_for_its_own_agent_user_action_and_resource(desk: Desk, other: dict[str, Any]) -> None:
    grant = give(desk, resource="case:c1")
    assert desk.state(ask(desk)) == "queued"
    assert desk.state(ask(desk, **other)) == "parked"
    assert used(desk, grant) == (0, 0)


def test_the_resource_of_a_grant_is_a_glob_and_looked_at_again_when_it_is_used(desk: Desk) -> None:
    give(desk, resource="case:*")
    made = ask(desk, resource="case:c7")
    assert desk.state(made) == "queued"
    assert desk.state(ask(desk, resource="account:c7")) == "parked"
    assert isinstance(desk.arrive(made, resource="account:c7"), Parked), "what the arguments say now decides"
    desk.admitted(ask(desk, resource="case:"))


@pytest.mark.parametrize(
    ("before", "after", "covered"),
    [
        ("id: ask,", "id: ask-now,", False),
        ("timeout: 15m", "timeout: 20m", False),
        ("timeout: 15m", "timeout: 15m, approvals: 2", False),
        ("timeout: 15m", "timeout: 15m, requester_may_approve: true", False),
        ('reason: "a person decides"', 'reason: "somebody decides"', True),
    ],
)
def test_a_grant_is_about_one_rule_in_one_version_of_its_chain(
    database_url: str, before: str, after: str, covered: bool
) -> None:
    first = Desk(make_governance(database_url))
    grant = give(first, until_us=first.gov.clock.now_us() + 10 * HOUR_US)
    carried = ask(first)
    clock(first).pass_s(3600)
    changed = Desk(make_governance(database_url, policy=POLICY.replace(before, after), clock=clock(first)))
    assert changed.state(ask(changed)) == ("queued" if covered else "parked")
    assert isinstance(changed.arrive(carried), Admitted if covered else Parked)
    assert used(changed, grant)[0] == int(covered)
    in_order(changed)
    for each in (first, changed):
        each.gov.store.close()


def test_another_attempt_of_an_action_uses_a_grant_once_and_spends_under_it_again(desk: Desk) -> None:
    grant = give(desk, max_uses=1, max_cost_micros=3000)
    made, other = ask(desk), ask(desk)
    desk.finish(desk.admitted(made), AskedToRetry("flaky", desk.gov.clock.now_us()))
    assert isinstance(desk.arrive(other), Parked)
    desk.admitted(made)
    child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert used(desk, grant) == (1, 2000)
    third = desk.admitted(made)
    assert used(desk, grant) == (1, 3000)
    desk.finish(third, AskedToRetry("flaky", desk.gov.clock.now_us()))
    assert isinstance(desk.arrive(made), Parked), "each attempt may spend: the bound on cost holds for all of them"
    in_order(desk)


def test_what_a_budget_refuses_uses_no_grant(desk: Desk) -> None:
    grant = give(desk, asked=ask(desk, stream="small"), max_uses=1)
    refused = desk.arrive(ask(desk, stream="small", cost_micros=200_000))
    assert isinstance(refused, Denied)
    assert refused.rule == "budget:cost_micros"
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    desk.arrive(ask(desk, stream="patient"))
    assert used(desk, grant) == (0, 0)
    desk.finish(desk.admitted(ask(desk, stream="small")), usage=Usage(cost_micros=1, tokens=1))
    assert used(desk, grant) == (1, 1000), "what was held counts, not what was used"
    in_order(desk)


def test_a_grant_is_given_with_bounds_that_end_by_who_may_approve(desk: Desk) -> None:
    made = desk.submit(**WHO)
    past = GrantTerms(until_us=desk.gov.clock.now_us())
    for terms, problem in (
        (GrantTerms(), "does not last for ever"),
        (past, "an instant to come"),
        (GrantTerms(for_session=True, max_uses=-1), "0 or more"),
    ):
        with pytest.raises(InvalidOption, match=problem):
            decide.approve(desk.gov, made.action_id, by=ANN, reason="fine", grant=terms)
    grant = give(desk)
    viewer = ANN.__class__("vic", frozenset({"viewer"}))
    with pytest.raises(NotAllowed):
        grants.revoke(desk.gov, grant, by=viewer, reason="no")
    assert desk.state(made) == "parked", "a grant is for what comes later"


def test_a_grant_is_found_behind_any_number_of_others(desk: Desk) -> None:
    gov = desk.gov
    asked = ask(desk)
    # What 120 sessions and 120 resources left behind.
    one = give(desk, asked=asked, for_session=True)
    same = set(table.c.keys()) - {"id", "session_id", "resource"}
    columns = ", ".join(f'"{name}"' for name in sorted(same))
    into = f"INSERT INTO grants (id, session_id, resource, {columns})"
    copy = f"{into} SELECT :id, {{}}, {columns} FROM grants WHERE id = :one"
    for number in range(120):
        elsewhere = {"id": f"0-session-{number}", "session": f"default@{number}", "one": one}
        gov.store.run(copy.format(":session, NULL"), elsewhere)
        other = {"id": f"0-resource-{number}", "resource": f"account:{number}", "one": one}
        gov.store.run(copy.format("session_id, :resource"), other)
    made = ask(desk)
    assert desk.state(made) == "queued"
    desk.admitted(made)
    assert used(desk, one) == (1, 1000)
    assert desk.state(ask(desk, resource="account:119", user="u1")) == "queued"


def test_what_cannot_be_used_any_more_does_not_last(desk: Desk) -> None:
    asked = [ask(desk) for _ in range(3)]
    session = give(desk, asked=asked[0], for_session=True, resource="nothing")
    spent = give(desk, asked=asked[1], max_cost_micros=1000)
    lasting = give(desk, asked=asked[2], max_cost_micros=2000, until_us=clock(desk).at_us + 9 * HOUR_US)
    desk.admitted(ask(desk))

    def listed(*, everything: bool) -> dict[str, str]:
        return {line.id: line.state for line in grants.list_grants(desk.gov, everything=everything, limit=9)}

    assert listed(everything=True) == {session: "lasting", spent: "used_up", lasting: "lasting"}
    clock(desk).pass_s(3600)
    assert listed(everything=True) == {session: "over", spent: "over", lasting: "lasting"}
    assert listed(everything=False) == {lasting: "lasting"}


def test_a_grant_is_given_with_one_approval(desk: Desk) -> None:
    made = [ask(desk), ask(desk)]
    with pytest.raises(InvalidOption, match="one ticket"):
        decide.approve_all(
            desk.gov,
            [one.action_id for one in made],
            by=ANN,
            reason="fine",
            grant=GrantTerms(for_session=True, max_uses=1),
        )
    assert [desk.state(one) for one in made] == ["parked", "parked"]
    assert grants.list_grants(desk.gov, everything=True, limit=9) == []
