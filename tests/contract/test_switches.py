"""A kill switch on real databases: from its commit on nothing in scope starts, whoever races, whatever restarts."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from governance.clock import SystemClock
from governance.core.policy import Risk
from governance.core.switches import EVERYTHING, Mode, Scope
from governance.errors import InvalidOption, NotAllowed, NotFound, StateConflict
from governance.operations import audit, clearing, decide, relay, switches
from governance.operations.answers import Admitted, Cancelled, Deferred, Denied, Dropped
from governance.operations.resolve import revoked
from tests.support import books
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance
from tests.support.racer import RACERS, race

STRICT = POLICY.replace(
    "  patient:", "  strict: {window: 1d, timezone: UTC, limits: {actions: 20}, on_exhausted: stop}\n  patient:"
)
SESSIONS, ACTIONS = 500, 2000


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock(), policy=STRICT)
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def engage(desk: Desk, scope: Scope, scope_id: str, mode: Mode = Mode.KILL) -> switches.Engaged:
    return switches.engage(desk.gov, scope, scope_id, mode=mode, reason="too fast", by=ANN)


def release(desk: Desk, engaged: switches.Engaged) -> list[str]:
    return clearing.release(desk.gov, engaged.switch.id, reason="it is safe again", by=ANN)


def count(desk: Desk, sql: str) -> int:
    return int(desk.gov.store.read(f"SELECT count(*) FROM {sql}", {})[0][0])


def test_nothing_starts_after_a_system_kill_and_everything_that_waits_is_cancelled(
    racing: Desk, database_url: str, tmp_path: Path
) -> None:
    streams = [f"stream-{number}" for number in range(SESSIONS)]
    made = [racing.submit(stream=streams[number % SESSIONS], tokens=0) for number in range(ACTIONS)]
    messages = [str(tmp_path), *(f"{one.stream}/{one.action_id}" for one in made)]
    begun = "events WHERE kind = 'action.admitted'"
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(race, database_url, "deliver", " ".join(messages), RACERS)
        deadline_s = time.monotonic() + 60
        while count(racing, begun) < 40:
            assert time.monotonic() < deadline_s
        stop = engage(racing, Scope.SYSTEM, EVERYTHING)
        engaged_s = time.monotonic()
        started = count(racing, begun)
        cancelled = clearing.cancel_waiting(racing.gov, stop.switch, "test")
        left = count(racing, "actions WHERE state IN ('queued', 'parked', 'deferred')")
        seen = running.result()
    assert count(racing, begun) == started == seen["Admitted"]
    assert 40 <= started < ACTIONS
    spans = [span for number in range(RACERS) for span in json.loads((tmp_path / f"{number}.json").read_text())]
    assert len(spans) == started
    assert max(began_s for began_s, _ in spans) < engaged_s
    last = "SELECT max(id) FROM events WHERE kind = 'action.admitted'"
    switch_event = "SELECT min(id) FROM events WHERE kind = 'switch.engaged'"
    assert racing.gov.store.read(last, {})[0][0] < racing.gov.store.read(switch_event, {})[0][0]

    assert left == 0, "cancelled to the end in one call"
    assert len(cancelled) <= ACTIONS - started
    assert count(racing, "actions WHERE state = 'cancelled'") == ACTIONS - started
    assert count(racing, "actions WHERE state = 'running'") == started
    assert count(racing, "accounts WHERE posted <> 0") == 0
    assert racing.gov.store.read("SELECT sum(held) FROM accounts WHERE unit = 'actions'", {})[0][0] == started
    books.assert_agree(racing.gov)
    assert audit.verify(racing.gov).problems == ()

    # What comes later does not escape: not in a session that is new, not on a governance that is.
    assert isinstance(racing.arrive(racing.submit(stream="a-new-one")), Cancelled)
    later = ManualClock(racing.gov.clock.now_us() + 86_400_000_000)
    restarted = Desk(make_governance(database_url, clock=later))
    assert isinstance(restarted.arrive(restarted.submit(stream=streams[0])), Cancelled)
    assert switches.board_now(restarted.gov).engaged == (stop.switch,)
    release(restarted, stop)
    assert isinstance(racing.arrive(racing.submit(stream="a-new-one")), Admitted)
    assert isinstance(racing.arrive(made[0]), Dropped)
    restarted.gov.store.close()


def test_what_waits_in_whatever_state_is_cancelled_with_its_ticket(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    deferred, asked, approved = desk.submit(stream="patient"), desk.submit(risk=Risk.HIGH), desk.submit(risk=Risk.HIGH)
    assert isinstance(desk.arrive(deferred), Deferred)
    decide.approve(desk.gov, approved.action_id, by=ANN, reason="fine")
    paused, queued, runs, over = desk.submit(user="u9"), desk.submit(), desk.submit(), desk.submit()
    engage(desk, Scope.USER, "u9", Mode.PAUSE)
    assert isinstance(desk.arrive(paused), Deferred)
    desk.admitted(runs)
    revoked(desk.gov, over.action_id, "worker:w")

    waiting = [deferred, asked, approved, paused, queued]
    stop = engage(desk, Scope.SYSTEM, EVERYTHING)
    assert set(clearing.cancel_waiting(desk.gov, stop.switch, "test")) == {made.action_id for made in waiting}
    assert [desk.state(made) for made in waiting] == ["cancelled"] * 5
    assert (desk.state(runs), desk.state(over)) == ("running", "denied")
    tickets = desk.gov.store.read("SELECT state FROM tickets ORDER BY state", {})
    assert [row[0] for row in tickets] == ["approved", "cancelled"]
    told = {message.action_id for message in relay.unpublished(desk.gov, 10)}
    assert told >= {deferred.action_id, asked.action_id, paused.action_id}, "no message of theirs was on its way"
    with pytest.raises(StateConflict, match="cancelled"):
        decide.approve(desk.gov, asked.action_id, by=BOB, reason="fine")
    release(desk, stop)
    assert all(isinstance(desk.arrive(made), Cancelled) for made in waiting)
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


@pytest.mark.parametrize(
    ("scope", "its", "others"),
    [
        (Scope.STREAM, {"stream": "small"}, {"stream": "default"}),
        (Scope.AGENT, {"agent_id": "a1"}, {"agent_id": "a11"}),
        (Scope.USER, {"user": "u1"}, {"user": None}),
        (Scope.TEAM, {"team": "t1"}, {"team": "T1"}),
        (Scope.ORG, {"org": "o1"}, {"org": None, "team": "o1"}),
        (Scope.NAME, {"name": "case.reply"}, {"name": "Case.reply"}),
        (Scope.MODEL, {"model": "M-1"}, {"model": None}),
    ],
)
def test_a_scope_is_stopped_and_not_its_neighbour(
    desk: Desk, scope: Scope, its: dict[str, object], others: dict[str, object]
) -> None:
    waits, neighbour = desk.submit(**its), desk.submit(**others)
    scope_id = {Scope.NAME: "case.*", Scope.MODEL: "m-*"}.get(scope, str(next(iter(its.values()))))
    stop = engage(desk, scope, scope_id)
    assert clearing.cancel_waiting(desk.gov, stop.switch, "test") == [waits.action_id]
    refused = desk.arrive(desk.submit(**its))
    assert isinstance(refused, Cancelled)
    assert refused.rule == f"switch:{scope}:{scope_id}"
    assert isinstance(desk.arrive(neighbour), Admitted)


def test_a_session_is_stopped_with_what_it_recorded_and_the_next_one_is_not(desk: Desk) -> None:
    carried, other = desk.submit(), desk.submit(stream="small")
    session = str(desk.gov.store.read("SELECT id FROM sessions WHERE stream = 'default'", {})[0][0])
    engage(desk, Scope.SESSION, session)
    assert isinstance(desk.arrive(desk.submit()), Cancelled)
    assert isinstance(desk.arrive(other), Admitted)
    clock(desk).pass_s(3600)
    assert isinstance(desk.arrive(desk.submit()), Admitted)
    assert isinstance(desk.arrive(carried), Cancelled), "it was recorded in the session that is stopped"
    kept = desk.gov.store.read("SELECT session_id FROM events WHERE kind = 'switch.engaged'", {})
    assert [row[0] for row in kept] == [session], "and the session's own trail says so"


def test_a_pause_defers_and_its_release_resumes_exactly_what_it_held_up(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    by_budget = desk.submit(stream="patient")
    assert isinstance(desk.arrive(by_budget), Deferred)
    mine, both, theirs = desk.submit(user="u1"), desk.submit(user="u1", agent_id="a1"), desk.submit(agent_id="a1")
    untouched = desk.submit(user="u1")
    by_user, by_agent = engage(desk, Scope.USER, "u1", Mode.PAUSE), engage(desk, Scope.AGENT, "a1", Mode.PAUSE)
    for made in (mine, both, theirs):
        told = desk.arrive(made)
        assert isinstance(told, Deferred)
        assert told.paused
        assert isinstance(desk.arrive(made), Deferred)
    clock(desk).pass_s(600)
    assert relay.release_due(desk.gov, "relay", 10) == [], "a pause has no time"
    assert clearing.cancel_waiting(desk.gov, by_user.switch, "test") == []

    assert release(desk, by_user) == [mine.action_id]
    assert [desk.state(made) for made in (mine, both, theirs, by_budget)] == ["queued", *["deferred"] * 3]
    assert isinstance(desk.arrive(untouched), Admitted)
    assert set(release(desk, by_agent)) == {both.action_id, theirs.action_id}
    assert all(isinstance(desk.arrive(made), Admitted) for made in (mine, both, theirs))
    assert desk.state(by_budget) == "deferred"
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_release_has_a_reason_a_name_and_happens_once(desk: Desk) -> None:
    stop = engage(desk, Scope.AGENT, "a1")
    assert engage(desk, Scope.AGENT, "a1") == switches.Engaged(stop.switch, repeated=True)
    with pytest.raises(InvalidOption, match="why it is safe again"):
        clearing.release(desk.gov, stop.switch.id, reason=" ", by=ANN)
    with pytest.raises(NotAllowed, match="operator"):
        clearing.release(desk.gov, stop.switch.id, reason="please", by=BOB)
    with pytest.raises(NotFound):
        clearing.release(desk.gov, "nope", reason="please", by=ANN)
    assert switches.board_now(desk.gov).engaged == (stop.switch,)
    release(desk, stop)
    with pytest.raises(StateConflict, match="released again"):
        release(desk, stop)
    row = desk.gov.store.read("SELECT released_by, release_reason FROM switches", {})[0]
    assert tuple(row) == ("principal:ann", "it is safe again")
    ((payload,),) = desk.gov.store.read("SELECT payload FROM events WHERE kind = 'switch.released'", {})
    assert json.loads(payload)["reason"] == "it is safe again"
    assert engage(desk, Scope.AGENT, "a1").switch.id != stop.switch.id, "a new engagement is another switch"


def test_two_who_engage_one_scope_at_once_engage_one_switch(racing: Desk, database_url: str) -> None:
    streams = [f"s{number}" for number in range(20)]
    seen = race(database_url, "engage", ",".join(streams), RACERS)
    assert (seen.pop("engaged"), seen.pop("repeated")) == (20, 20 * (RACERS - 1))
    assert sorted(seen.values()) == [RACERS] * 20, "everybody was told the same switch"
    assert count(racing, "switches WHERE released_us IS NULL") == count(racing, "switches") == 20
    assert count(racing, "events WHERE kind = 'switch.engaged'") == 20
    assert sorted(row[0] for row in racing.gov.store.read("SELECT epoch FROM switches", {})) == list(range(1, 21))


def test_switches_of_others_hold_nobody_up(racing: Desk, database_url: str, tmp_path: Path) -> None:
    """Every change of a switch has the admissions under way look again; none is lost, none waits for ever."""
    made = [racing.submit(cost_micros=1) for _ in range(200)]
    messages = [str(tmp_path), *(f"default/{one.action_id}" for one in made)]
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(race, database_url, "deliver", " ".join(messages), RACERS)
        rounds = 0
        while not running.done():
            release(racing, engage(racing, Scope.STREAM, "another", Mode.PAUSE))
            rounds += 1
        seen = running.result()
    assert seen == {"Admitted": 200}
    assert rounds > 5
    books.assert_agree(racing.gov)


def test_a_used_up_budget_stops_its_own_session_once_and_no_other(racing: Desk, database_url: str) -> None:
    racing.admitted(racing.submit(stream="small"))
    racing.submit(stream="strict")
    seen = race(database_url, "exhaust", "10", RACERS)
    assert seen == {"strict Admitted": 20, "strict Cancelled": 60, "default Admitted": 80}
    (session,) = (row[0] for row in racing.gov.store.read("SELECT id FROM sessions WHERE stream = 'strict'", {}))
    (row,) = racing.gov.store.read("SELECT scope, scope_id, mode, engaged_by FROM switches", {})
    assert tuple(row) == ("session", session, "kill", "governance")
    assert count(racing, "events WHERE kind = 'switch.engaged'") == 1
    assert racing.account("actions", "strict") == {"limit": 20, "posted": 0, "held": 20}
    assert isinstance(racing.arrive(racing.submit(stream="small")), Admitted)
    tomorrow = ManualClock(racing.gov.clock.now_us() + 86_400_000_000)
    next_day = Desk(make_governance(database_url, clock=tomorrow, policy=STRICT))
    assert isinstance(next_day.arrive(next_day.submit(stream="strict")), Admitted)
    next_day.gov.store.close()
    assert not isinstance(racing.arrive(racing.submit(stream="strict")), Admitted | Denied)
    books.assert_agree(racing.gov)
