"""Any operation after any other, on a real database: what the store says is what a small model says, and the books,
the tickets, the grants and the trail agree with each other after every step.
"""

import itertools
import os
from collections.abc import Mapping

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from governance.core.switches import EVERYTHING, Mode, Scope
from governance.operations import audit, clearing, heartbeat, recover, resolve, switches
from governance.operations.escalate import escalate_overdue
from governance.operations.reconcile import reconcile
from tests.support import books
from tests.support.governed import Desk, ManualClock, make_governance
from tests.support.machine import BOSS, Operations
from tests.support.modelled import MINUTE_US, POLICIES, SCOPES, STREAMS, TERMINAL, WAITING, Engaged

# For looking longer: ACP_TEST_RUNS=2000.
RUNS = int(os.environ.get("ACP_TEST_RUNS", "40"))
STEPS = 40
LEASE_S = 12
# What may come next, some of it more often.
TURNS = (
    *("submit", "submit", "arrive", "arrive", "arrive", "approve", "approve", "finish", "finish", "time_passes"),
    *("deny_or_extend", "arrive_again", "operator", "accident", "resolve", "raise_budget"),
)


class Fleet(Operations):
    """And what operators, beat and time do."""

    # One rule for all: a machine leaves out half of its rules in a run, and then hardly anything happens in it.
    @rule(data=st.data(), what=st.sampled_from(TURNS), policy=st.sampled_from(sorted(POLICIES)))
    def turn(self, data: st.DataObject, what: str, policy: str) -> None:
        needed = {
            "finish": "running",
            "approve": "parked",
            "deny_or_extend": "parked",
            "resolve": "in_doubt",
            "arrive": "queued",
        }
        possible = self.has(needed[what]) if what in needed else bool(self.model.acts)
        getattr(self, what if possible else "submit")(data, policy)

    def operator(self, data: st.DataObject, policy: str) -> None:
        gov = self.desk(policy).gov
        releases: bool = data.draw(st.booleans())
        if releases and self.model.switches:
            switch = data.draw(st.sampled_from(self.model.switches))
            self._cancelled_by([switch])
            resumed = clearing.release(gov, switch.id, reason="safe", by=BOSS)
            self.model.switches.remove(switch)
            assert set(resumed) == self._resumed()
            return
        scope, scope_id, kill = self._drawn(data)
        mode = Mode.KILL if kill else Mode.PAUSE
        engaged = switches.engage(gov, Scope(scope), scope_id, mode=mode, reason="stop", by=BOSS, grace_s=0)
        same = [s for s in self.model.switches if (s.scope, s.scope_id, s.kill) == (scope, scope_id, kill)]
        assert (engaged.repeated, [engaged.switch.id]) == (bool(same), [s.id for s in same] or [engaged.switch.id])
        if not same:
            self.model.switches.append(Engaged(engaged.switch.id, scope, scope_id, kill))
        if data.draw(st.booleans()):
            cancelled = clearing.cancel_waiting(gov, engaged.switch, "test")
            assert set(cancelled) == self._cancelled_by([s for s in self.model.switches if s.id == engaged.switch.id])

    def _drawn(self, data: st.DataObject) -> tuple[str, str, bool]:
        scope = data.draw(st.sampled_from(SCOPES))
        known = {
            "action": sorted(self.model.acts) or ["nobody's"],
            "session": sorted(self.model.pinned) or ["none"],
            "stream": STREAMS,
            "agent": ["a1", "a2"],
            "user": ["u1", "u2"],
            "name": ["case.*", "case.reply", "case.refund"],
            "system": [EVERYTHING],
        }
        return scope, data.draw(st.sampled_from(known[scope])), data.draw(st.sampled_from([False, False, True]))

    def _cancelled_by(self, engaged: list[Engaged]) -> set[str]:
        kills = [switch for switch in engaged if switch.kill]
        found = [a for a in self.model.in_state(*WAITING) if any(s.covers(a, {a.session}) for s in kills)]
        for act in found:
            act.refused("cancelled", "cancelled")
            act.not_before_us = 0
        return {act.made.action_id for act in found}

    def _resumed(self) -> set[str]:
        engaged = {switch.id for switch in self.model.switches}
        found = [a for a in self.model.in_state("deferred") if a.paused_by is not None and a.paused_by not in engaged]
        for act in found:
            act.state, act.paused_by, act.not_before_us = "queued", None, 0
        return {act.made.action_id for act in found}

    def time_passes(self, data: st.DataObject, _policy: str) -> None:
        """And beat's jobs come, or some of them."""
        minutes = data.draw(st.sampled_from([1, 1, 5, 14, 31, 61]))
        jobs = data.draw(st.sets(st.sampled_from(["due", "up", "clear"])))
        self.clock.at_us += minutes * MINUTE_US
        if "due" in jobs:
            self.release_due()
        if "up" in jobs:
            self._escalate()
        if "clear" in jobs:
            cancelled, resumed = clearing.sweep(self.desk().gov, "switches")
            assert cancelled == len(self._cancelled_by(self.model.switches))
            assert set(resumed) == self._resumed()

    def _escalate(self) -> None:
        parked = {act.made.action_id for act in self.model.in_state("parked")}
        self.model.escalate(self.now_us)
        denied = {act.made.action_id for act in self.model.in_state("denied")} & parked
        assert set(escalate_overdue(self.desk().gov, "escalation").denied) == denied
        again = escalate_overdue(self.desk("second").gov, "escalation")
        assert (again.moved_up, again.denied) == (0, [])

    def accident(self, data: st.DataObject, _policy: str) -> None:
        what = data.draw(st.sampled_from(["silent", "stopped", "child", "zombie", "grant", "celery", "verify"]))
        if what == "zombie" and self.zombies:
            self.finish_again(data)
        elif what == "grant" and self.model.grants:
            self.revoke_grant(data)
        elif what == "celery" and self.has("queued", "parked"):
            act = self.pick(data, "queued", "parked")
            assert resolve.revoked(self.desk().gov, act.made.action_id, "worker:w")
            act.refused("denied", "denied")
        elif what == "verify":
            assert audit.verify(self.desk().gov).problems == ()
        elif what in ("silent", "stopped", "child") and self.has("running"):
            self._lose(self.pick(data, "running").worker, what)

    def _lose(self, name: str, how: str) -> None:
        """A worker falls silent or says goodbye, or one of its children is gone."""
        gone, gov = self.workers[name], self.desk().gov
        lost = [act for act in self.model.in_state("running") if act.worker == name]
        if how == "stopped":
            heartbeat.goodbye(gov, gone)
            self._sweep([gone], len(lost))
        elif how == "silent":
            heartbeat.beat(gov, gone)
            self.clock.at_us += (LEASE_S + 1) * 1_000_000
            suspected = recover.suspects(gov)
            self._sweep([gone], 0)
            self.clock.at_us += LEASE_S // 2 * 1_000_000
            self._sweep([gone], len(lost), suspected)
        else:
            assert len(recover.child_gone(gov, gone, "child-1", "killed")) == len(lost)
        for act in lost:
            self.model.reclaim(act)
        if how in ("stopped", "silent"):
            self.workers[name] = f"{name}@{self.now_us}+{gone}"[:200]
            heartbeat.register(gov, self.workers[name], 1)

    def _sweep(self, silent: list[str], expected: int, watched: Mapping[str, int] | None = None) -> None:
        for worker in self.workers.values():
            if worker not in silent:
                heartbeat.beat(self.desk().gov, worker)
        swept = recover.sweep(self.desk().gov, "recovery", watched or {})
        assert sum(swept.reclaimed.values()) == expected, swept

    def resolve(self, data: st.DataObject, _policy: str) -> None:
        act, outcome = self.pick(data, "in_doubt"), data.draw(st.sampled_from(["succeeded", "failed", "retry"]))
        resolve.resolve(self.desk().gov, act.made.action_id, outcome=outcome, by=BOSS, reason="looked", command_id=None)
        act.end("queued" if outcome == "retry" else outcome)

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        read, since = self.desk().gov.store.read, {"since": self.began_us}
        rows = read(
            """SELECT a.id, a.state, a.attempt, a.session_id, a.digest, a.grant_id, a.switch_id,
                t.id, t.state, t.level, t.due_us, t.expires_us, t.digest
                FROM actions a LEFT JOIN tickets t ON t.id = a.ticket_id WHERE a.created_us >= :since""",
            since,
        )
        assert len(rows) == len(self.model.acts)
        for id_, state, attempt, session, digest, grant, switch, *ticket in rows:
            act = self.model.acts[id_]
            told = (state, attempt, session, digest, grant, switch)
            assert told == (act.state, act.attempt, act.session, act.digest, act.grant, act.paused_by), act
            if act.ticket is None:
                assert ticket[0] is None, act
                continue
            act.ticket.id = act.ticket.id or ticket[0]
            asked = act.ticket
            assert tuple(ticket) == (
                asked.id,
                asked.state,
                asked.level,
                asked.due_us,
                asked.expires_us,
                asked.digest,
            ), act
        accounts = read("SELECT id, limit_amount, posted, held FROM accounts WHERE window_end_us > :since", since)
        known = {row[0]: list(row[1:]) for row in accounts if not row[0].startswith("session:control@")}
        assert known == self.model.accounts
        uses = read("SELECT id, uses, cost_micros, revoked_us IS NULL FROM grants WHERE created_us >= :since", since)
        assert {row[0]: (row[1], row[2], not row[3]) for row in uses} == {
            grant.id: (grant.uses, grant.cost, grant.revoked) for grant in self.model.grants
        }

    @invariant()
    def everything_agrees(self) -> None:
        books.assert_agree(self.desk().gov, self.began_us)
        assert reconcile(self.desk().gov).findings == ()

    def teardown(self) -> None:
        """Leaves nothing behind that another run could meet, and finds the whole trail in order."""
        gov = self.desk().gov
        stop = switches.engage(gov, Scope.SYSTEM, EVERYTHING, mode=Mode.KILL, reason="over", by=BOSS)
        clearing.cancel_waiting(gov, stop.switch, "test")
        for act in self.model.in_state("running"):
            recover.child_gone(gov, self.workers[act.worker], "child-1", "over")
        clearing.sweep(gov, "test")
        for (id_,) in gov.store.read("SELECT id FROM actions WHERE state = 'in_doubt'", {}):
            resolve.resolve(gov, id_, outcome="failed", by=BOSS, reason="over", command_id=None)
        for switch in switches.board_now(gov).engaged:
            clearing.release(gov, switch.id, reason="over", by=BOSS)
        left = {str(row[0]) for row in gov.store.read("SELECT DISTINCT state FROM actions", {})}
        assert left <= set(TERMINAL)
        assert gov.store.read("SELECT id FROM accounts WHERE held <> 0", {}) == []
        books.assert_agree(gov, self.began_us)
        assert audit.verify(gov).problems == ()


def test_any_operation_after_any_other(database_url: str) -> None:
    clock = ManualClock()
    desks = {name: Desk(make_governance(database_url, policy=text, clock=clock)) for name, text in POLICIES.items()}
    Machine = type("Machine", (Fleet,), {"desks": desks, "clock": clock, "eras": itertools.count()})
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="ACP_TEST_RUNS" not in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        for desk in desks.values():
            desk.gov.store.close()
