"""Whom an action is charged to: by the directory that is in force when it is admitted, whatever its caller left out."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from governance.core.identity import Identity
from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.directory_file import parse_directory
from governance.errors import CommandConflict, NotAllowed, NotFound
from governance.operations import audit, decide, switches
from governance.operations.answers import Admitted, Cancelled, Denied
from governance.operations.directory import identity_of, in_place, list_members, load, show_identity
from governance.operations.submit import submit
from governance.store import actions
from governance.store.engine import Store
from tests.support.governed import ANN, BOB, POLICY, Desk, make_governance, submission

FIRST = parse_directory("{version: 1, orgs: [o1, o2], teams: {t1: o1, t2: o2}, users: {u1: t1, u2: t2}}")
MOVED = parse_directory("{version: 1, orgs: [o1, o2], teams: {t1: o1, t2: o2}, users: {u1: t2}}")
STRICT = f"require_identity: [org]\n{POLICY}".replace(
    "rules:\n", 'rules:\n  - {id: not-o2, match: {org: o2}, effect: deny, reason: "o2 is closed"}\n'
)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=STRICT)
    yield Desk(gov)
    gov.store.close()


def row(desk: Desk, action_id: str) -> tuple[Any, ...]:
    found = desk.gov.store.read(
        """SELECT "user", team, org, filled, state FROM actions WHERE id = :id""", {"id": action_id}
    )
    return tuple(found[0])


def test_a_known_user_is_charged_to_team_and_org_although_the_call_omits_them(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    made = desk.submit(user="u1")
    assert row(desk, made.action_id) == ("u1", "t1", "o1", "org,team", "queued")
    run = desk.admitted(made)
    assert (run.action.team, run.action.org) == ("t1", "o1")
    refused = desk.submit(user="u2")
    assert row(desk, refused.action_id) == ("u2", "t2", "o2", "org,team", "denied")
    told = desk.arrive(refused)
    assert isinstance(told, Denied)
    assert told.rule == "not-o2", "the policy sees the org that was filled in"
    assert audit.verify(desk.gov).problems == ()


def test_a_directory_that_is_loaded_after_the_submission_counts(desk: Desk) -> None:
    """Whatever this or another process remembers, and whatever an earlier directory filled in."""
    early = desk.submit(user="u1", org="o1")
    load(desk.gov, FIRST, by=ANN)
    run = desk.admitted(early)
    assert (run.action.team, run.action.org) == ("t1", "o1")
    assert row(desk, early.action_id) == ("u1", "t1", "o1", "team", "running")
    events = desk.gov.store.read(
        "SELECT payload FROM events WHERE action_id = :id AND kind = 'action.admitted'", {"id": early.action_id}
    )
    assert '"identity":{"org":"o1","team":"t1","user":"u1"}' in events[0][0]

    filled = desk.submit(user="u1")
    elsewhere = make_governance(url_of(desk), policy=STRICT, clock=desk.gov.clock)
    load(elsewhere, MOVED, by=ANN)
    told = desk.arrive(filled)
    assert isinstance(told, Denied), "o2 is closed, and u1 belongs to it now"
    assert told.rule == "not-o2"
    assert row(desk, filled.action_id) == ("u1", "t2", "o2", "org,team", "denied")
    contradicted = desk.submit(user="u1", team="t1")
    told = desk.arrive(contradicted)
    assert isinstance(told, Denied)
    assert told.rule == "identity:contradiction"
    assert "user u1 belongs to team t2 by the directory, and the action says team t1" in told.reason
    assert audit.verify(desk.gov).problems == ()
    elsewhere.store.close()


def test_a_required_part_that_nobody_knows_is_refused_by_whoever_asks_first(desk: Desk) -> None:
    at_once = desk.submit(risk=Risk.HIGH, user="u1")
    assert row(desk, at_once.action_id)[-1] == "denied", "no person is asked about what may not run anyway"
    told = desk.arrive(at_once)
    assert isinstance(told, Denied)
    assert told.rule == "identity:missing"
    assert "requires an org, and neither user u1 nor the directory says which" in told.reason
    assert desk.gov.store.read("SELECT count(*) FROM tickets", {})[0][0] == 0
    load(desk.gov, FIRST, by=ANN)
    later = desk.submit(user="u1")
    load(desk.gov, parse_directory("version: 1"), by=ANN)
    told = desk.arrive(later)
    assert isinstance(told, Denied)
    assert told.rule == "identity:missing"
    assert row(desk, later.action_id) == ("u1", None, None, None, "denied")
    direct = desk.submit(can_wait=False)
    told = desk.arrive(direct, can_wait=False)
    assert isinstance(told, Denied)
    assert told.rule == "identity:missing"


def test_nobody_is_refused_by_what_a_process_remembers(desk: Desk) -> None:
    load(desk.gov, MOVED, by=ANN)
    desk.submit(user="u1")
    other = make_governance(url_of(desk), policy=STRICT, clock=desk.gov.clock)
    load(other, FIRST, by=ANN)
    made = submission(user="u1")
    # It remembers that u1 belongs to o2, which is closed.
    assert identity_of(desk.gov, Identity("u1")).identity.org == "o2"
    assert submit(desk.gov, made).state == "queued"
    assert row(desk, made.action_id)[:3] == ("u1", "t1", "o1")
    other.store.close()


def test_a_submission_that_is_let_through_costs_no_further_round_trip(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    desk.submit(user="u1")
    before = desk.gov.store.round_trips
    made = desk.submit(user="u1")
    submitted = desk.gov.store.round_trips - before
    desk.admitted(made)
    admitted = desk.gov.store.round_trips - before - submitted
    plain = Desk(make_governance(url_of(desk), policy=POLICY, clock=desk.gov.clock))
    plain.submit(stream="small", org="o1")
    before = plain.gov.store.round_trips
    made = plain.submit(stream="small", org="o1")
    assert plain.gov.store.round_trips - before == submitted
    before = plain.gov.store.round_trips
    plain.admitted(made)
    assert plain.gov.store.round_trips - before == admitted
    plain.gov.store.close()


def test_a_load_between_the_read_and_the_write_of_an_admission_is_seen(desk: Desk, monkeypatch: Any) -> None:
    """An admission that read the directory of before is not written."""
    load(desk.gov, FIRST, by=ANN)
    made = desk.submit(user="u1")
    gather = actions.gather
    calls: list[int] = []

    def gather_then_load(*args: Any) -> Any:
        found = gather(*args)
        if not calls:
            calls.append(1)
            load(desk.gov, MOVED, by=ANN)
        return found

    monkeypatch.setattr(actions, "gather", gather_then_load)
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert told.rule == "not-o2"


def test_switches_and_approvals_go_by_the_identity_that_is_in_force(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    asked = desk.submit(user="u1", risk=Risk.HIGH)
    decide.approve(desk.gov, asked.action_id, by=ANN, reason="fine")
    assert isinstance(desk.arrive(asked), Admitted)
    made = desk.submit(user="u1")
    switches.engage(desk.gov, Scope.ORG, "o1", mode=Mode.KILL, reason="stop o1", by=ANN)
    told = desk.arrive(made)
    assert isinstance(told, Cancelled)
    assert told.rule == "switch:org:o1"


def test_a_load_replaces_the_whole_directory_and_says_so(desk: Desk) -> None:
    assert in_place(desk.gov) is None
    with pytest.raises(NotAllowed):
        load(desk.gov, FIRST, by=BOB)
    loaded = load(desk.gov, FIRST, by=ANN, command_id="load-1")
    assert (loaded.orgs, loaded.teams, loaded.users, loaded.hash_before) == (2, 2, 2, None)
    assert load(desk.gov, FIRST, by=ANN, command_id="load-1") == replace(loaded, repeated=True)
    with pytest.raises(CommandConflict):
        load(desk.gov, MOVED, by=ANN, command_id="load-1")
    assert load(desk.gov, MOVED, by=ANN).hash_before == FIRST.hash
    assert [(one.org, one.team, one.user) for one in list_members(desk.gov, org=None, team=None, limit=10)] == [
        ("o1", "t1", None),
        ("o2", "t2", "u1"),
    ]
    assert [one.user for one in list_members(desk.gov, org="o1", team=None, limit=10)] == [None]
    line = in_place(desk.gov)
    assert line is not None
    assert (line.hash, line.users, line.loaded_by) == (MOVED.hash, 1, "principal:ann")
    told = desk.gov.store.read("SELECT session_id, payload FROM events WHERE kind = 'identities.loaded'", {})
    assert len(told) == 2
    assert told[0][0].startswith("control@")
    assert f'"hash":"{MOVED.hash}","hash_before":"{FIRST.hash}","orgs":2,"teams":2,"users":1' in told[1][1]
    assert show_identity(desk.gov, Identity("u1")).identity == Identity("u1", "t2", "o2")
    with pytest.raises(NotFound):
        show_identity(desk.gov, Identity("u2"))
    assert audit.verify(desk.gov).problems == ()


def test_of_loads_at_once_each_is_whole(desk: Desk) -> None:
    stores = [Store(url_of(desk)) for _ in range(4)]
    problems: list[BaseException] = []

    def loads(number: int) -> None:
        gov = replace(desk.gov, store=stores[number], sessions={}, policies={}, boards=[])
        try:
            for _ in range(3):
                load(gov, (FIRST, MOVED)[number % 2], by=ANN)
        except BaseException as problem:
            problems.append(problem)

    racers = [threading.Thread(target=loads, args=(number,)) for number in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    for store in stores:
        store.close()
    assert problems == []
    line = in_place(desk.gov)
    assert line is not None
    users = {one.user for one in list_members(desk.gov, org=None, team=None, limit=10)} - {None}
    assert users == set((FIRST if line.hash == FIRST.hash else MOVED).users)
    assert desk.gov.store.read("SELECT count(*) FROM directories", {})[0][0] == 12


def url_of(desk: Desk) -> str:
    return desk.gov.store.url.render_as_string(hide_password=False)
