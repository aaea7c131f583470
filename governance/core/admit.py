"""Admission: a tuple of gates over one snapshot, first refusal wins. This file decides; nothing here writes.

The snapshot is read before the write, so the store applies the decision only while the snapshot still holds: the same
state and attempt, the ticket where it was, room on every account. Otherwise it is gathered and decided anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from governance.core.approvals import Chain, one_level
from governance.core.budgets import Charge, Charges, Payer, resets
from governance.core.changes import ActionRef
from governance.core.grants import UseGrant
from governance.core.identity import Part, Resolved
from governance.core.identity import refusal as identity_refusal
from governance.core.instants import iso
from governance.core.ledger import Account, Hold, Unit, exhausted, holds_for
from governance.core.models import ModelAccess, ModelAllowed, ModelRefused, Override
from governance.core.plans import OnExhausted
from governance.core.policy import Allow, Deny, Park, Steer, Verdict
from governance.core.sessions import Session
from governance.core.signing import RULE as SIGNATURE
from governance.core.switches import Mode, Scope, Switch
from governance.core.tickets import MoveTicket, Ticket, TicketState
from governance.core.transitions import consumption
from governance.core.windows import DAY_US, NEVER_US


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the gates may look at, read together."""

    action: ActionRef
    digest: str
    session: Session
    unsigned: str | None
    identity: Resolved
    required: frozenset[Part]
    switch: Switch | None
    verdict: Verdict
    ticket: Ticket | None
    grant: UseGrant | None
    payer: Payer
    charges: Charges
    access: ModelAccess | None
    accounts: tuple[Account, ...]
    amounts: dict[Unit, int]
    on_exhausted: OnExhausted
    expires_us: int | None
    can_wait: bool
    now_us: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The budget that a refusal is about: its account as it was found, without room for `wanted` more.

    `charge` is None for a session's own account.
    """

    account: Account
    wanted: int
    charge: Charge | None
    on_exhausted: OnExhausted

    @property
    def rule(self) -> str:
        """How a refusal names it."""
        return f"budget:{self.account.unit}" if self.charge is None else self.charge.budget.rule

    @property
    def reason(self) -> str:
        name = self.account.id if self.charge is None else self.charge.name
        limit, posted, held = self.account.limit, self.account.posted, self.account.held
        return (
            f"{name} has {self.account.left} {self.account.unit} left, this needs {self.wanted} "
            f"(limit {limit}, used {posted}, held {held}, {resets(self.account.resets_us)})"
        )

    @property
    def is_used_up(self) -> bool:
        """Whether it is no matter of this one action: it would fit the whole budget, and not what is left.

        Money that is only held may come back, and one action that is too large for it all says nothing of it.
        """
        used = self.account.posted + (self.account.held if self.account.unit is Unit.ACTIONS else 0)
        return self.wanted <= (self.account.limit or 0) < used + self.wanted


@dataclass(frozen=True, slots=True)
class Admit:
    """May run, with these holds; `ticket` is consumed by this admission, `grant` counts it.

    `override`: the exception by which it may use its model.
    """

    holds: tuple[Hold, ...]
    ticket: MoveTicket | None
    rule: str
    grant: UseGrant | None = None
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class ParkFor:
    """Waits for a person."""

    rule: str
    reason: str
    chain: Chain
    exhausted: Exhausted | None = None


@dataclass(frozen=True, slots=True)
class DeferUntil:
    """Not before `until_us` or, with a switch, not before its release."""

    until_us: int
    rule: str
    reason: str
    switch_id: str | None = None
    exhausted: Exhausted | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    rule: str
    reason: str
    guidance: str | None = None
    suggest: tuple[str, ...] = ()
    exhausted: Exhausted | None = None
    #: Set when it is the model that it may not use; the trail says so beside the denial.
    model: ModelRefused | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A kill switch covers it."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngageSwitch:
    """The budget is used up and stops its own scope; after that this action meets the switch."""

    scope: Scope
    scope_id: str
    exhausted: Exhausted


#: Who is asked when a budget that never resets parks an action: any approver, for a week.
ASK_FOR_A_RAISE: Final = one_level(7 * DAY_US)
CANNOT_WAIT = "a direct call cannot wait for it: enqueue the task with delay()"

Refusal: TypeAlias = ParkFor | DeferUntil | Refuse | Cancel | EngageSwitch
Decision: TypeAlias = Admit | Refusal
Gate: TypeAlias = Callable[[Snapshot], Refusal | None]


def switch_gate(snapshot: Snapshot) -> Refusal | None:
    """A kill switch covers the action: `kill` cancels it, `pause` defers it until the release."""
    switch = snapshot.switch
    if switch is None:
        return None
    if switch.mode is Mode.PAUSE:
        return DeferUntil(snapshot.now_us, switch.rule, f"paused: {switch.reason}", switch.id)
    return Cancel(switch.rule, switch.reason)


def expiry_gate(snapshot: Snapshot) -> Refusal | None:
    """The caller wanted it by a time that has passed."""
    if snapshot.expires_us is None or snapshot.now_us <= snapshot.expires_us:
        return None
    return Refuse("expires", f"it was to start before {iso(snapshot.expires_us)}")


def signature_gate(snapshot: Snapshot) -> Refusal | None:
    """Its row is not what a known key has signed."""
    return None if snapshot.unsigned is None else Refuse(SIGNATURE, snapshot.unsigned)


def identity_gate(snapshot: Snapshot) -> Refusal | None:
    """The policy requires a part of the identity that nobody knows, or the directory says otherwise than the caller."""
    refusal = identity_refusal(snapshot.identity, snapshot.required)
    return None if refusal is None else Refuse(*refusal)


def policy_gate(snapshot: Snapshot) -> Refusal | None:
    """The session's pinned policy denies the action or points to another one."""
    match snapshot.verdict:
        case Deny(rule, reason):
            return Refuse(rule, reason)
        case Steer(rule, reason, guidance, suggest):
            return Refuse(rule, reason, guidance, suggest)
        case Allow() | Park():
            return None
        case _:
            assert_never(snapshot.verdict)


def approval_gate(snapshot: Snapshot) -> Refusal | None:
    """The policy wants a person, and no approval of exactly these arguments under this rule is there.

    A ticket that an earlier attempt of the same action consumed still stands: a retry is the same action. A grant
    stands for a ticket.
    """
    verdict = snapshot.verdict
    if not isinstance(verdict, Park) or snapshot.grant is not None:
        return None
    if ticket_stands(snapshot.ticket, verdict, snapshot.digest, snapshot.session.policy_hash):
        return None
    return ParkFor(verdict.rule, verdict.reason, verdict.chain)


def ticket_stands(ticket: Ticket | None, verdict: Park, digest: str, policy_hash: str) -> bool:
    """Whether `ticket` is an approval of exactly these arguments, under this rule, policy and chain."""
    return (
        ticket is not None
        and ticket.state in (TicketState.APPROVED, TicketState.CONSUMED)
        and (ticket.digest, ticket.rule) == (digest, verdict.rule)
        and (ticket.policy_hash, ticket.chain_hash) == (policy_hash, verdict.chain.hash)
    )


def model_gate(snapshot: Snapshot) -> Refusal | None:
    """The action declares a model that whom it is charged to may not use."""
    access = snapshot.access
    return Refuse(access.rule, access.reason, model=access) if isinstance(access, ModelRefused) else None


def budgets_gate(snapshot: Snapshot) -> Refusal | None:
    """A budget that this action is charged to has no room for it."""
    account = exhausted(snapshot.accounts, snapshot.amounts)
    if account is None:
        return None
    charge, _ = snapshot.charges.accounts.get(account.id, (None, account.unit))
    on_exhausted = snapshot.on_exhausted if charge is None else charge.budget.on_exhausted
    short = Exhausted(account, snapshot.amounts[account.unit], charge, on_exhausted)
    match on_exhausted:
        case OnExhausted.DEFER:
            return DeferUntil(account.resets_us, short.rule, short.reason, exhausted=short)
        case OnExhausted.DENY:
            return Refuse(short.rule, short.reason, exhausted=short)
        case OnExhausted.PARK:
            return ParkFor(short.rule, short.reason, _ask_for_a_raise(account, snapshot.now_us), exhausted=short)
        case OnExhausted.STOP:
            if not short.is_used_up:
                return Refuse(short.rule, short.reason, exhausted=short)
            scope, scope_id = (Scope.SESSION, snapshot.session.id) if charge is None else charge.scope(snapshot.payer)
            return EngageSwitch(scope, scope_id, short)
        case _:
            assert_never(on_exhausted)


def _ask_for_a_raise(account: Account, now_us: int) -> Chain:
    """Any approver, until the budget resets."""
    return ASK_FOR_A_RAISE if account.resets_us >= NEVER_US else one_level(max(account.resets_us - now_us, 1))


def waits_for_a_reset(rule: str, chain: str) -> bool:
    """Whether a request has its end when the budget that parked its action resets, and nobody needs to answer then."""
    return rule.startswith("budget:") and chain != ASK_FOR_A_RAISE.text


GATES: tuple[Gate, ...] = (
    switch_gate,
    expiry_gate,
    signature_gate,
    identity_gate,
    policy_gate,
    approval_gate,
    model_gate,
    budgets_gate,
)


def decide(snapshot: Snapshot) -> Decision:
    """Admit with holds on every account, or the first gate's refusal."""
    for gate in GATES:
        refusal = gate(snapshot)
        if refusal is not None:
            return refusal if snapshot.can_wait else without_waiting(refusal)
    return Admit(
        holds=holds_for(snapshot.accounts, snapshot.amounts),
        ticket=_to_consume(snapshot),
        rule=snapshot.verdict.rule,
        grant=snapshot.grant,
        override=snapshot.access.override if isinstance(snapshot.access, ModelAllowed) else None,
    )


def without_waiting(refusal: Refusal) -> Refuse | Cancel | EngageSwitch:
    """What a refusal means to a caller that cannot wait."""
    if isinstance(refusal, Refuse | Cancel | EngageSwitch):
        return refusal
    return Refuse(refusal.rule, f"{refusal.reason}; {CANNOT_WAIT}", exhausted=refusal.exhausted)


def _to_consume(snapshot: Snapshot) -> MoveTicket | None:
    ticket = snapshot.ticket
    if ticket is None or ticket.state is not TicketState.APPROVED or ticket.digest != snapshot.digest:
        return None
    return consumption(ticket, snapshot.now_us)
