"""What the model is made of: actions, requests, grants and switches in plain values, and the policy they are under."""

from dataclasses import dataclass, field
from typing import Final

from governance.core.actions import Submission
from governance.core.grants import GrantTerms
from governance.core.instants import SECOND_US
from governance.core.policy import Risk
from governance.operations.answers import Admitted

POLICY: Final = """
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {cost_usd: "1.00", actions: 1000}}
  small: {window: 1h, timezone: UTC, limits: {cost_usd: "0.004", actions: 4}}
  patient: {window: 1h, timezone: UTC, limits: {actions: 2}, on_exhausted: defer}
  strict: {window: 1h, timezone: UTC, limits: {actions: 2}, on_exhausted: stop}
rules:
  - {id: never, match: {risk: critical}, effect: deny, reason: "too dangerous"}
  - id: two
    match: {action: case.refund}
    effect: approval
    approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}], approvals: 2}
  - {id: ask, match: {risk: high}, effect: approval, approval: {timeout: 15m}}
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
budgets:
  - {id: each, identity: {user: "*"}, period: daily, max_cost_usd: "0.006"}
"""
#: Another version: requests of the rule `ask` wait longer, and approvals under the first one count no more.
POLICIES: Final = {"first": POLICY, "second": POLICY.replace("timeout: 15m", "timeout: 20m")}
STREAMS: Final = ("default", "small", "patient", "strict")
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
TERMINAL: Final = ("succeeded", "failed", "denied", "cancelled")
WAITING: Final = ("queued", "parked", "deferred")
#: Narrowest first.
SCOPES: Final = ("action", "session", "stream", "agent", "user", "name", "system")
LEVELS: Final = {
    ("two", "first"): (("team-lead", 15 * MINUTE_US), ("on-call", 30 * MINUTE_US)),
    ("two", "second"): (("team-lead", 15 * MINUTE_US), ("on-call", 30 * MINUTE_US)),
    ("ask", "first"): (("", 15 * MINUTE_US),),
    ("ask", "second"): (("", 20 * MINUTE_US),),
}


def rule_of(made: Submission) -> str:
    if made.risk is Risk.CRITICAL:
        return "never"
    return "two" if made.name == "case.refund" else "ask" if made.risk is Risk.HIGH else "routine"


@dataclass
class Request:
    """A ticket; its id is told once the store has it."""

    policy: str
    digest: str
    due_us: int
    expires_us: int
    id: str = ""
    state: str = "pending"
    level: int = 0
    votes: tuple[str, ...] = ()
    wanted: tuple[GrantTerms | None, ...] = ()
    edited: bool = False


@dataclass
class Act:
    """An action. `holds` are those of its running attempt, by account."""

    made: Submission
    session: str
    digest: str
    expires_us: int | None
    state: str = "queued"
    attempt: int = 0
    not_before_us: int = 0
    paused_by: str | None = None
    ticket: Request | None = None
    grant: str | None = None
    worker: str = ""
    holds: dict[str, int] = field(default_factory=dict)
    run: Admitted | None = None

    @property
    def rule(self) -> str:
        return rule_of(self.made)

    def end(self, state: str) -> None:
        """In a state in which it does not run."""
        assert self.state not in TERMINAL, f"{self.state} is the end"
        self.state, self.worker, self.holds = state, "", {}
        self.paused_by = None

    def refused(self, state: str, ticket: str) -> None:
        self.end(state)
        if self.ticket is not None and self.ticket.state == "pending":
            self.ticket.state = ticket


@dataclass
class Standing:
    """A grant."""

    id: str
    rule: str
    policy: str
    like: Submission
    session: str | None
    max_uses: int | None
    max_cost: int | None
    until_us: int | None
    created_us: int
    uses: int = 0
    cost: int = 0
    revoked: bool = False

    def covers(self, act: Act, policy: str, session: str, uses: int, now_us: int) -> bool:
        made = act.made
        same = (self.rule, LEVELS[self.rule, self.policy]) == (act.rule, LEVELS.get((act.rule, policy)))
        return (
            same
            and not self.revoked
            and (self.like.name, self.like.agent_id, self.like.user) == (made.name, made.agent_id, made.user)
            and self.session in (None, session)
            and (self.until_us is None or now_us < self.until_us)
            and (self.max_uses is None or self.uses + uses <= self.max_uses)
            and (self.max_cost is None or 0 < made.cost_micros <= self.max_cost - self.cost)
        )


@dataclass
class Engaged:
    """A switch."""

    id: str
    scope: str
    scope_id: str
    kill: bool

    def covers(self, act: Act, sessions: set[str]) -> bool:
        made = act.made
        match self.scope:
            case "session":
                return self.scope_id in sessions
            case "name":
                return made.name.startswith(self.scope_id.rstrip("*"))
            case "system":
                return True
        ids = {"action": made.action_id, "stream": made.stream, "agent": made.agent_id, "user": made.user}
        return ids[self.scope] == self.scope_id
