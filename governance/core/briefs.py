"""A brief's values and sentences: what a person is told who decides a request.

The sentences are ours. What came from the agent (arguments, resource) is quoted as data in them and never told as
prose: whoever asks for an approval must not write what the approver reads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from governance.core.actions import State
from governance.core.approvals import Chain, Vote
from governance.core.instants import iso
from governance.core.ledger import Unit
from governance.core.tickets import TicketState

_SHOWN_ARGUMENTS: Final = 12
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class AskedOf:
    """The ticket: who is asked, what they said so far, and what happens if nobody says more.

    `level` counts from 0; empty `roles` mean any approver; `wanted` approvals by different people release the action.
    """

    id: str
    state: TicketState
    level: int
    levels: int
    roles: tuple[str, ...]
    votes: tuple[Vote, ...]
    wanted: int
    requester_may_approve: bool
    requested_us: int
    due_us: int
    expires_us: int
    then: str
    decided_us: int | None
    decided_by: str | None
    decision_reason: str | None


@dataclass(frozen=True, slots=True)
class Edited:
    """Somebody who approved put other arguments in the place of those with `digest_before`."""

    by: str
    at_us: int
    digest_before: str


@dataclass(frozen=True, slots=True)
class What:
    """What would run. `arguments` has `args` and `kwargs` exactly as they are recorded."""

    summary: str
    action_id: str
    action_name: str
    action_state: State
    resource: str | None
    arguments: Mapping[str, Any]
    digest: str
    edits: tuple[Edited, ...]


@dataclass(frozen=True, slots=True)
class Why:
    """The rule that wants a person, and its sentence.

    `policy_changed`: another version of the policy is in force by now. An approval does not count under it: what it
    says of the action is asked again when that is to run.
    """

    rule: str
    reason: str
    policy_changed: bool


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts, who pays, and where it belongs."""

    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    session_id: str
    stream: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class BudgetEffect:
    """One account of the session or of a budget: used and held now (`before`), and with this action (`after`)."""

    account_id: str
    unit: Unit
    before: int
    after: int
    limit_amount: int | None
    resets_us: int

    @property
    def fits(self) -> bool:
        return self.limit_amount is None or self.after <= self.limit_amount


@dataclass(frozen=True, slots=True)
class RecentAction:
    """What the same agent asked for before or since."""

    id: str
    name: str
    state: State
    resource: str | None
    created_us: int


@dataclass(frozen=True, slots=True)
class EarlierDecision:
    """How a request of the same rule and action name ended: approved, denied or expired."""

    ticket_id: str
    action_id: str
    decision: str
    by: str | None
    reason: str | None
    decided_us: int


@dataclass(frozen=True, slots=True)
class Brief:
    """`charged_to` is the session that an admission now would charge; None when no window of the stream is open, or
    when there is no admission to come: then there are no `budgets`.
    """

    ticket: AskedOf
    what: What
    why: Why
    who: Who
    risk: str
    model: str | None
    cost_micros: int
    tokens: int
    charged_to: str | None
    budgets: tuple[BudgetEffect, ...]
    recent: tuple[RecentAction, ...]
    earlier: tuple[EarlierDecision, ...]


def decision_of(state: TicketState) -> str:
    """The decision as people say it: what was approved stays so when it is consumed."""
    return TicketState.APPROVED if state is TicketState.CONSUMED else state


def what_follows(
    state: TicketState, chain: Chain, level: int, *, due_us: int, expires_us: int, decided_us: int | None, now_us: int
) -> str:
    """What happens to a request if nobody answers, or what has happened."""
    if state is TicketState.EXPIRED:
        return f"nobody answered until {iso(expires_us)}, so it was denied"
    if state is not TicketState.PENDING:
        assert decided_us is not None, "the schema dates every decision"
        return f"it was {decision_of(state)} at {iso(decided_us)}"
    if expires_us <= now_us:
        return f"nobody answered until {iso(expires_us)}, so it is denied now"
    ends_us = due_us
    parts = [f"{_named(chain.roles_at(level))} is asked until {iso(ends_us)}"]
    for later in chain.levels[level + 1 :]:
        ends_us = min(ends_us + later.within_us, expires_us)
        parts.append(f"then {_named(later.roles)} as well until {iso(ends_us)}")
    return ", ".join([*parts, "then it is denied"])


def summary_of(name: str, resource: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Such as `runs case.refund("c1", amount=5) on "customer_case:c1"`: literals, cut where they are long."""
    shown = [_literal(value) for value in args]
    shown += [f"{_key(key)}={_literal(value)}" for key, value in kwargs.items()]
    if len(shown) > _SHOWN_ARGUMENTS:
        shown = [*shown[:_SHOWN_ARGUMENTS], f"… {len(shown) - _SHOWN_ARGUMENTS} more"]
    on = f" on {_literal(resource)}" if resource is not None else ""
    return f"runs {name}({', '.join(shown)}){on}"


def _named(roles: Sequence[str]) -> str:
    return " or ".join(roles) if roles else "any approver"


def _key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() and len(key) <= _SHOWN_CHARACTERS else _literal(key)


def _literal(value: object) -> str:
    """JSON in ASCII, so that no text can end its own quotes, break the line or look like other letters."""
    text = json.dumps(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
