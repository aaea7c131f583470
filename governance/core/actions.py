"""The life of an action: its states, the edges between them, and the values that enter and leave it.

    submit ──► queued ──► running ──► succeeded | failed
      │          ▲  │        │  ├────► deferred    (it waits for what it asked for)
      │          │  │        │  └────► queued      (retry; lease lost and the action is idempotent)
      │          │  │        └───────► in_doubt    (lease lost and it is not) ──► queued | succeeded | failed
      ├─► parked ┘  ├─► deferred ──► queued        (not before its time)
      │     └────►──┴─► denied
      └─► denied        cancelled                  (a kill switch; from queued, parked, deferred, running)

An edge that is not in `EDGES` does not exist: the store guards each with its expected state, the audit replays every
action's history against this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from governance.core.identity import Identity, Resolved, claimed_of, filled_text, parse_filled
from governance.core.policy import ActionFacts, Risk
from governance.core.signing import Signable


class State(StrEnum):
    QUEUED = "queued"
    PARKED = "parked"
    DEFERRED = "deferred"
    RUNNING = "running"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.DENIED, State.CANCELLED})
# What was refused before it ran, or stopped: the caller is told who did, by which rule and why.
REFUSED = frozenset({State.DENIED, State.CANCELLED})

# Event kind -> the (before, after) pairs it may record.
EDGES: Mapping[str, frozenset[tuple[State | None, State]]] = {
    "action.submitted": frozenset({(None, State.QUEUED), (None, State.PARKED), (None, State.DENIED)}),
    "action.parked": frozenset({(State.QUEUED, State.PARKED)}),
    "action.deferred": frozenset({(State.QUEUED, State.DEFERRED)}),
    "action.suspended": frozenset({(State.RUNNING, State.DEFERRED)}),
    "action.released": frozenset({(State.PARKED, State.QUEUED), (State.DEFERRED, State.QUEUED)}),
    "action.denied": frozenset({(State.QUEUED, State.DENIED), (State.PARKED, State.DENIED)}),
    "action.admitted": frozenset({(State.QUEUED, State.RUNNING)}),
    "action.abandoned": frozenset({(State.RUNNING, State.QUEUED)}),
    "action.succeeded": frozenset({(State.RUNNING, State.SUCCEEDED)}),
    "action.failed": frozenset({(State.RUNNING, State.FAILED)}),
    "action.retried": frozenset({(State.RUNNING, State.QUEUED)}),
    "action.reclaimed": frozenset(
        {(State.RUNNING, State.QUEUED), (State.RUNNING, State.IN_DOUBT), (State.RUNNING, State.FAILED)}
    ),
    "action.cancelled": frozenset(
        {(before, State.CANCELLED) for before in (State.QUEUED, State.PARKED, State.DEFERRED, State.RUNNING)}
    ),
    "action.interrupted": frozenset({(State.RUNNING, State.IN_DOUBT)}),
    "action.resolved": frozenset(
        {(State.IN_DOUBT, State.QUEUED), (State.IN_DOUBT, State.SUCCEEDED), (State.IN_DOUBT, State.FAILED)}
    ),
}


def illegal_step(kind: str, before: State | None, after: State) -> str | None:
    """Why an action may not go from `before` to `after` by `kind`, or None when it may."""
    edges = EDGES.get(kind)
    if edges is None:
        return f"{kind} is not a transition"
    if (before, after) not in edges:
        return f"{kind} may not lead from {before} to {after}"
    return None


@dataclass(frozen=True, slots=True)
class Submission:
    """One call, as the producer asked for it. `message` is what Celery needs to publish it again, as JSON."""

    action_id: str
    command_id: str
    name: str
    digest: str
    message: str
    stream: str
    risk: Risk
    idempotent: bool
    correlation_id: str
    agent_id: str | None = None
    user: str | None = None
    team: str | None = None
    org: str | None = None
    filled: str | None = None  # parts of the identity that the directory said and the caller did not
    resource: str | None = None
    model: str | None = None
    cost_micros: int = 0
    tokens: int = 0
    arguments: Mapping[str, object] | None = None
    not_before_us: int | None = None
    expires_us: int | None = None
    signature: str | None = None  # of whoever submits it
    can_wait: bool = True  # False: a direct call, which is refused where another one would be parked or deferred

    @property
    def claimed(self) -> Identity:
        """Whom the caller says it is charged to."""
        return claimed_of(Identity(self.user, self.team, self.org), parse_filled(self.filled))

    @property
    def signable(self) -> Signable:
        return Signable(
            action_id=self.action_id,
            command_id=self.command_id,
            name=self.name,
            stream=self.stream,
            agent_id=self.agent_id,
            claimed=self.claimed,
            risk=self.risk,
            idempotent=self.idempotent,
            direct=not self.can_wait,
            model=self.model,
            cost_micros=self.cost_micros,
            tokens=self.tokens,
            correlation_id=self.correlation_id,
            digest=self.digest,
            resource=self.resource,
            message=self.message,
        )

    def charged_to(self, resolved: Resolved) -> "Submission":
        """The same call under the identity that the directory gives it."""
        identity = resolved.identity
        filled = filled_text(resolved.filled)
        if (identity.user, identity.team, identity.org, filled) == (self.user, self.team, self.org, self.filled):
            return self
        return replace(self, user=identity.user, team=identity.team, org=identity.org, filled=filled)

    def facts(self) -> ActionFacts:
        return ActionFacts(
            name=self.name,
            risk=self.risk,
            resource=self.resource,
            stream=self.stream,
            agent_id=self.agent_id,
            user=self.user,
            team=self.team,
            org=self.org,
            cost_micros=self.cost_micros,
            tokens=self.tokens,
            arguments=self.arguments or {},
            model=self.model,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Who runs an attempt: the worker process (one heartbeat row) and its pool child."""

    worker_id: str
    child: str
