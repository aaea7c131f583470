"""What producers, workers and approvers do, as rules of a state machine: each on the real operations and on a model.

Every run lives in an era of its own, months after the one before, so that one database serves all of them. Two
governances with two policy versions stand for two processes: each has its own idea of sessions and switches.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from governance.core.actions import Lease, State
from governance.core.grants import GrantTerms
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.core.switches import Scope
from governance.errors import InvalidOption, NotAllowed, StateConflict
from governance.operations import budgets, decide, grants, heartbeat, relay, switches
from governance.operations.answers import Admitted
from governance.operations.commanded import Decided
from governance.operations.decide import EditedArguments
from governance.operations.finish import AskedToRetry, Fenced, Outcome, Raised, Settled, Stopped, Succeeded, give_back
from governance.operations.submit import Recorded, Repeated, submit
from tests.support.governed import Desk, ManualClock
from tests.support.model import Model
from tests.support.modelled import DAY_US, HOUR_US, MINUTE_US, STREAMS, TERMINAL, Act, Engaged, Standing

PEOPLE = {"lee": "team-lead", "oona": "on-call", "ann": "any", "bob": "any", "u1": "any"}
ROLES = {"team-lead": "approver:team-lead", "on-call": "approver:on-call", "any": "approver"}
BOSS = Principal("boss", frozenset({"admin"}))
ERA_US = 24 * 40 * HOUR_US
SUBMISSIONS = st.fixed_dictionaries(
    {
        "stream": st.sampled_from(STREAMS),
        "risk": st.sampled_from([Risk.LOW, Risk.LOW, Risk.HIGH, Risk.HIGH, Risk.HIGH, Risk.CRITICAL]),
        "name": st.sampled_from(["case.reply", "case.reply", "case.refund"]),
        "agent_id": st.sampled_from(["a1", "a2"]),
        "user": st.sampled_from(["u1", "u2"]),
        "cost_micros": st.sampled_from([0, 1000, 2500]),
        "idempotent": st.booleans(),
        "expires_us": st.sampled_from([None, None, None, 30 * MINUTE_US]),
    }
)
ENDINGS = st.tuples(
    st.sampled_from(["succeeded", "failed", "retry", "retry", "other", "cancelled", "in_doubt", "abandoned"]),
    st.sampled_from([None, 0, 700, 9000]),
    st.sampled_from([0, 0, 10 * MINUTE_US]),
)
APPROVALS = st.tuples(
    st.sampled_from(sorted(PEOPLE)),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(
        [
            None,
            GrantTerms(for_session=True),
            GrantTerms(until_us=2 * HOUR_US, max_uses=2),
            GrantTerms(until_us=HOUR_US // 2, max_cost_micros=3000),
        ]
    ),
)


def bounds(terms: GrantTerms | None) -> tuple[object, ...] | None:
    """What has to be the same in two wishes for a grant."""
    if terms is None:
        return None
    return terms.for_session, terms.resource, terms.max_uses, terms.max_cost_micros, terms.until_us is None


def principal(name: str) -> Principal:
    return Principal(name, frozenset({ROLES[PEOPLE[name]]}))


class Operations(RuleBasedStateMachine):
    desks: ClassVar[dict[str, Desk]]
    clock: ClassVar[ManualClock]
    eras: ClassVar[Iterator[int]]

    def __init__(self) -> None:
        super().__init__()
        self.began_us = self.clock.at_us = 1_800_000_000_000_000 // ERA_US * ERA_US + next(self.eras) * ERA_US
        self.model = Model()
        self.workers = {f"w{number}": f"w{number}@{self.began_us}" for number in range(3)}
        self.zombies: list[tuple[Act, Admitted]] = []
        for worker in self.workers.values():
            heartbeat.register(self.desk().gov, worker, 1)
        assert switches.board_now(self.desk().gov).engaged == ()

    def desk(self, policy: str = "first") -> Desk:
        return self.desks[policy]

    @property
    def now_us(self) -> int:
        return self.clock.at_us

    def pick(self, data: st.DataObject, *states: str) -> Act:
        return data.draw(st.sampled_from(self.model.in_state(*states)))

    def has(self, *states: str) -> bool:
        return bool(self.model.in_state(*states))

    # --- what producers and workers do -------------------------------------------------------------------------------

    def submit(self, data: st.DataObject, policy: str) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            self._submit(data, policy)

    def arrive(self, data: st.DataObject, policy: str) -> None:
        """Messages of some queued actions."""
        queued = st.sampled_from(self.model.in_state("queued"))
        for act in data.draw(st.lists(queued, min_size=1, max_size=3, unique_by=id)):
            self._arrive(act, policy, data.draw(st.sampled_from(sorted(self.workers))))

    def arrive_again(self, data: st.DataObject, policy: str) -> None:
        """A message of whatever action, in whatever state."""
        self._arrive(data.draw(st.sampled_from([*self.model.acts.values()])), policy, "w0")

    def _submit(self, data: st.DataObject, policy: str) -> None:
        changes: dict[str, Any] = data.draw(SUBMISSIONS)
        if changes["expires_us"] is not None:
            changes["expires_us"] += self.now_us
        made = self.desk(policy).submit(**changes, tokens=10)
        act = self.model.submit(made, policy, self.now_us)
        assert self.desk(policy).submitted == Recorded(made.action_id, State(act.state))
        assert submit(self.desk(policy).gov, made) == Repeated(made.action_id, State(act.state))

    def _arrive(self, act: Act, policy: str, worker: str) -> None:
        lease = Lease(self.workers[worker], "child-1")
        self.model.session(act.made.stream, policy, self.now_us)
        due = act.not_before_us <= self.now_us + 1_000_000
        told = self.desk(policy).arrive(act.made, lease=lease, digest=act.digest)
        if act.state != "queued" or not due:
            answers = {"parked": "Parked", "deferred": "Deferred"}
            wanted = answers.get(act.state, "Dropped")
            assert type(told).__name__ == wanted or act.state in TERMINAL, told
            assert not isinstance(told, Admitted)
            return
        expected = self.model.arrive(act, policy, worker, self.now_us)
        if expected == "Stop":
            (session, _) = self.model.session(act.made.stream, policy, self.now_us)
            (switch,) = switches.engaged_in(self.desk(policy).gov, Scope.SESSION, session)
            self.model.switches.append(Engaged(switch, "session", session, kill=True))
            expected = self.model.arrive(act, policy, worker, self.now_us)
        assert type(told).__name__ == expected, (told, act)
        if isinstance(told, Admitted):
            act.run = told
            self.zombies.append((act, told))

    def release_due(self) -> None:
        due = [act for act in self.model.in_state("deferred") if not act.paused_by and act.not_before_us <= self.now_us]
        released = relay.release_due(self.desk().gov, "relay", 1000)
        assert {out.action_id for out in released} == {act.made.action_id for act in due}
        for act in due:
            act.state, act.not_before_us = "queued", 0

    def finish(self, data: st.DataObject, _policy: str) -> None:
        act = self.pick(data, "running")
        outcome, spent, wait_us = data.draw(ENDINGS)
        assert act.run is not None
        used: dict[str, int | None] = {"actions": 1, "cost_micros": spent, "tokens": 3}
        state, desk = outcome, self.desk()
        match outcome:
            case "abandoned":
                lease = Lease(self.workers[act.worker], "child-1")
                assert give_back(desk.gov, act.made.action_id, lease, None)
                used, state = dict.fromkeys(used, 0), "queued"
            case "retry" | "other":
                state, digest = "queued", f"{act.digest}+" if outcome == "other" else None
                act.digest = digest or act.digest
                act.not_before_us = self.now_us + wait_us
                ended = AskedToRetry("again", act.not_before_us, '{"other": 1}' if digest else None, digest)
                assert isinstance(desk.finish(act.run, ended, Usage(spent, 3)), Settled)
            case _:
                stopped = Stopped("switch:system", "stop", in_doubt=outcome == "in_doubt")
                endings: dict[str, Outcome] = {"succeeded": Succeeded("1"), "failed": Raised("E", "no")}
                assert isinstance(desk.finish(act.run, endings.get(outcome, stopped), Usage(spent, 3)), Settled)
        self.model.close(act, state, used)

    def finish_again(self, data: st.DataObject) -> None:
        """A zombie reports, or a finish whose answer was lost is repeated."""
        act, run = data.draw(st.sampled_from(self.zombies))
        if act.state == "running" and act.run is run:
            return
        assert isinstance(self.desk("second").finish(run, Raised("E", "late"), Usage(5, 5)), Settled | Fenced)

    # --- what people do ----------------------------------------------------------------------------------------------

    def approve(self, data: st.DataObject, policy: str) -> None:
        act = self.pick(data, "parked")
        name, edited, terms = data.draw(APPROVALS)
        ticket, desk = act.ticket, self.desk(policy)
        assert ticket is not None
        if terms is not None and terms.until_us is not None:
            terms = replace(terms, until_us=self.now_us + terms.until_us)
        edit = EditedArguments('{"other": 2}', f"{act.digest}!", None) if edited else None

        def approve(seen: str | None = act.digest) -> Decided:
            by = principal(name)
            return decide.approve(desk.gov, ticket.id, by=by, reason="fine", seen=seen, edit=edit, grant=terms)

        if self._refused(act, name, approve):
            return
        if name == act.made.user:
            with pytest.raises(NotAllowed, match="asked for themselves"):
                approve()
            return
        if name in ticket.votes:
            with pytest.raises(StateConflict, match="already"):
                approve()
            return
        if ticket.edited and edit is None:
            with pytest.raises(InvalidOption, match="digest"):
                approve(seen=None)
        asked = (*(ticket.wanted if edit is None else ()), terms)
        if terms is not None and len(asked) == (2 if act.rule == "two" else 1):
            if {bounds(other) for other in asked} != {bounds(terms)}:
                with pytest.raises(InvalidOption, match="what all who approve ask for"):
                    approve()
                return
            ends = [other.until_us for other in asked if other is not None and other.until_us is not None]
            terms = replace(terms, until_us=min(ends, default=None))
            if ends and min(ends) <= self.now_us:
                with pytest.raises(InvalidOption, match="an instant to come"):
                    approve()
                return
        decided = approve()
        if edit is not None:
            ticket.edited = True
            act.digest = ticket.digest = edit.digest
            ticket.votes = ()
        ticket.votes, ticket.wanted = (*ticket.votes, name), asked
        if act.rule == "two" and len(ticket.votes) < 2:
            assert (decided.state, decided.grant_id) == ("parked", None)
            return
        ticket.state, act.state, act.expires_us, act.not_before_us = "approved", "queued", None, 0
        assert (decided.state, decided.grant_id is None) == ("queued", terms is None)
        if decided.grant_id is not None and terms is not None:
            session = self.model.session(act.made.stream, policy, self.now_us)[0] if terms.for_session else None
            limits = (terms.max_uses, terms.max_cost_micros, terms.until_us)
            given = Standing(decided.grant_id, act.rule, ticket.policy, act.made, session, *limits, self.now_us)
            self.model.grants.append(given)

    def deny_or_extend(self, data: st.DataObject, _policy: str) -> None:
        """Deny, or give more time."""
        act, name = self.pick(data, "parked"), data.draw(st.sampled_from(sorted(PEOPLE)))
        by, more_s = principal(name), data.draw(st.sampled_from([None, 60, 1800]))
        ticket, gov = act.ticket, self.desk().gov
        assert ticket is not None

        def decided() -> Decided:
            if more_s is None:
                return decide.deny(gov, act.made.action_id, by=by, reason="no")
            return decide.extend(gov, act.made.action_id, by=by, seconds=more_s, reason="later")

        if self._refused(act, name, decided):
            return
        if more_s is not None and name == act.made.user:
            with pytest.raises(NotAllowed, match="asked for themselves"):
                decided()
            return
        decided()
        if more_s is None:
            act.refused("denied", "denied")
        else:
            ticket.due_us += more_s * 1_000_000
            ticket.expires_us += more_s * 1_000_000

    def _refused(self, act: Act, name: str, decided: Any) -> bool:
        """Whether the decision has to be refused, and was, because it comes late or from somebody else."""
        assert act.ticket is not None
        if act.ticket.expires_us <= self.now_us:
            with pytest.raises(StateConflict, match="overdue"):
                decided()
            return True
        if not self.model.may_approve(act, PEOPLE[name]):
            with pytest.raises(NotAllowed):
                decided()
            return True
        return False

    def raise_budget(self, data: st.DataObject, policy: str) -> None:
        """For longer than a run lasts."""
        more = data.draw(st.sampled_from([1, 1000]))
        until_us = self.now_us + 30 * DAY_US
        budgets.raise_budget(self.desk(policy).gov, "each", until_us=until_us, reason="busy", by=BOSS, cost_micros=more)
        self.model.raise_budget(more, self.now_us)

    def revoke_grant(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.model.grants))
        if grant.revoked:
            with pytest.raises(StateConflict):
                grants.revoke(self.desk().gov, grant.id, by=BOSS, reason="over")
        else:
            grants.revoke(self.desk().gov, grant.id, by=BOSS, reason="over")
            grant.revoked = True
