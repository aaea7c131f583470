"""What the operations should do to a handful of actions, said again in plain values: no database, no epoch, no guard.

The state machine test performs every step on the real operations and on this, and compares. The clock is the fleet's;
ids are the store's, told by the test.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from governance.core.actions import Submission
from governance.core.instants import iso
from tests.support.modelled import DAY_US, HOUR_US, LEVELS, SCOPES, Act, Engaged, Request, Standing

ATTEMPTS_MAX: Final = 5

_EACH: Final = 6000
_LIMITS: Final = {"default": (1000, 1_000_000), "small": (4, 4000), "patient": (2, None), "strict": (2, None)}


@dataclass
class Model:
    """Everything that one run of the machine has made. `accounts` are [limit, posted, held]."""

    acts: dict[str, Act] = field(default_factory=dict)
    grants: list[Standing] = field(default_factory=list)
    switches: list[Engaged] = field(default_factory=list)
    pinned: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, list[int | None]] = field(default_factory=dict)
    raised: int = 0

    def session(self, stream: str, policy: str, now_us: int) -> tuple[str, str]:
        """The session in force and the policy that whoever opened it had."""
        session = f"{stream}@{iso(now_us - now_us % HOUR_US)}"
        if session not in self.pinned:
            self.pinned[session] = policy
            actions, cost = _LIMITS[stream]
            for unit, limit in (("actions", actions), ("cost_micros", cost), ("tokens", None)):
                self.accounts[f"session:{session}:{unit}"] = [limit, 0, 0]
        return session, self.pinned[session]

    def budget(self, user: str | None, now_us: int) -> str:
        """A user's account of the day, opened by whoever asks first, with what was raised until then."""
        account = f"budget:each:daily:user={user}:{iso(now_us - now_us % DAY_US)}:cost_micros"
        self.accounts.setdefault(account, [_EACH + self.raised, 0, 0])
        return account

    def raise_budget(self, amount: int, now_us: int) -> None:
        """For everybody, today and from now on."""
        self.raised += amount
        for name, account in self.accounts.items():
            if name.startswith("budget:") and f":{iso(now_us - now_us % DAY_US)}:" in name:
                assert account[0] is not None
                account[0] += amount

    def submit(self, made: Submission, policy: str, now_us: int) -> Act:
        session, policy = self.session(made.stream, policy, now_us)
        act = self.acts[made.action_id] = Act(made, session, made.digest, made.expires_us)
        if act.rule == "never":
            act.state = "denied"
        elif act.rule != "routine" and self._grant(act, policy, session, now_us) is None:
            self._park(act, policy, now_us)
        return act

    def arrive(self, act: Act, policy: str, worker: str, now_us: int) -> str:
        """Moves a queued, due action; the name of the answer. "Stop": a budget has to engage its switch first."""
        session, policy = self.session(act.made.stream, policy, now_us)
        budget = self.budget(act.made.user, now_us)
        switch = self.stopping(act, {act.session, session})
        if switch is not None and switch.kill:
            act.refused("cancelled", "cancelled")
            return "Cancelled"
        if switch is not None:
            act.state, act.paused_by, act.not_before_us = "deferred", switch.id, now_us
            return "Deferred"
        if act.expires_us is not None and now_us > act.expires_us:
            act.end("denied")
            return "Denied"
        grant = None
        if act.rule != "routine" and not self._approved(act, policy):
            grant = self._grant(act, policy, session, now_us)
            if grant is None:
                self._park(act, policy, now_us)
                return "Parked"
        amounts = {"actions": 1, "cost_micros": act.made.cost_micros, "tokens": act.made.tokens}
        wanted = {f"session:{session}:{unit}": amount for unit, amount in amounts.items()}
        wanted[budget] = act.made.cost_micros
        short = [account for account, amount in wanted.items() if not self._fits(account, amount)]
        if short:
            return self._exhausted(act, min(short, key=self._tightness), now_us)
        for account, amount in wanted.items():
            self._move(account, 0, amount)
        if grant is not None:
            grant.uses += act.grant != grant.id
            grant.cost += act.made.cost_micros
            act.grant = grant.id
        if act.ticket is not None and (act.ticket.state, act.ticket.digest) == ("approved", act.digest):
            act.ticket.state = "consumed"
        act.state, act.session, act.worker, act.holds = "running", session, worker, wanted
        act.attempt += 1
        return "Admitted"

    def stopping(self, act: Act, sessions: set[str]) -> Engaged | None:
        covering = [switch for switch in self.switches if switch.covers(act, sessions)]
        return min(covering, key=lambda s: (not s.kill, SCOPES.index(s.scope), s.id), default=None)

    def close(self, act: Act, state: str, used: dict[str, int | None]) -> None:
        """Ends the running attempt: `used` by unit, None is all that was held."""
        for account, amount in act.holds.items():
            spent = used[account.rpartition(":")[2]]
            self._move(account, amount if spent is None else spent, -amount)
        act.end(state)

    def reclaim(self, act: Act) -> None:
        """Its attempt is gone. What must not run twice is in doubt; what a kill switch covers does not run again."""
        switch = self.stopping(act, {act.session})
        state = "failed" if act.attempt >= ATTEMPTS_MAX else "queued"
        if not act.made.idempotent:
            state = "in_doubt"
        elif switch is not None and switch.kill:
            state = "cancelled"
        self.close(act, state, dict.fromkeys(("actions", "cost_micros", "tokens")))

    def escalate(self, now_us: int) -> None:
        for act in self.in_state("parked"):
            ticket = act.ticket
            assert ticket is not None
            levels = LEVELS[act.rule, ticket.policy]
            while act.state == "parked" and ticket.due_us <= now_us:
                if ticket.level + 1 < len(levels):
                    ticket.level += 1
                    ticket.due_us = min(ticket.due_us + levels[ticket.level][1], ticket.expires_us)
                else:
                    act.refused("denied", "expired")

    def may_approve(self, act: Act, role: str) -> bool:
        assert act.ticket is not None
        asked = {level[0] for level in LEVELS[act.rule, act.ticket.policy][: act.ticket.level + 1]}
        return role == "any" or "" in asked or role in asked

    def in_state(self, *states: str) -> list[Act]:
        return [act for act in self.acts.values() if act.state in states]

    def _approved(self, act: Act, policy: str) -> bool:
        ticket = act.ticket
        return (
            ticket is not None
            and ticket.state in ("approved", "consumed")
            and (ticket.digest, ticket.policy) == (act.digest, policy)
        )

    def _grant(self, act: Act, policy: str, session: str, now_us: int) -> Standing | None:
        for grant in sorted(self.grants, key=lambda grant: (grant.created_us, grant.id)):
            if grant.covers(act, policy, session, int(grant.id != act.grant), now_us):
                return grant
        return None

    def _park(self, act: Act, policy: str, now_us: int) -> None:
        levels = LEVELS[act.rule, policy]
        ends_us = now_us + sum(level[1] for level in levels)
        act.state, act.ticket = "parked", Request(policy, act.digest, now_us + levels[0][1], ends_us)

    def _fits(self, account: str, amount: int) -> bool:
        limit, posted, held = self.accounts[account]
        assert posted is not None
        assert held is not None
        return limit is None or posted + held + amount <= limit

    def _move(self, account: str, posted: int, held: int) -> None:
        limit, before, holding = self.accounts[account]
        assert before is not None
        assert holding is not None
        self.accounts[account] = [limit, before + posted, holding + held]

    def _tightness(self, account: str) -> tuple[Fraction, bool, str]:
        """The smallest share left first; of equals the day's, which resets last."""
        limit, posted, held = self.accounts[account]
        left = max((limit or 0) - (posted or 0) - (held or 0), 0)
        return (Fraction(left, limit) if limit else Fraction(0), account.startswith("session:"), account)

    def _exhausted(self, act: Act, account: str, now_us: int) -> str:
        if account.startswith("budget:"):
            act.end("denied")
            return "Denied"
        if act.made.stream == "strict":
            return "Stop"
        if act.made.stream == "patient":
            act.state, act.not_before_us = "deferred", now_us - now_us % HOUR_US + HOUR_US
            return "Deferred"
        act.end("denied")
        return "Denied"
