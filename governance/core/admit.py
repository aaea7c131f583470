"""Admission: a tuple of gates over one snapshot, first refusal wins. This file decides; nothing here writes.

The snapshot is read before the write, so the store applies the decision only while the snapshot still holds: the same
state and attempt, the ticket where it was, room on every account. Otherwise it is gathered and decided anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from governance.core.approvals import Chain
from governance.core.changes import ActionRef
from governance.core.grants import UseGrant
from governance.core.identity import Part, Resolved
from governance.core.identity import refusal as identity_refusal
from governance.core.instants import iso
from governance.core.ledger import Account, Hold, Unit, exhausted, holds_for
from governance.core.plans import OnExhausted
from governance.core.policy import Allow, Deny, Park, Steer, Verdict
from governance.core.sessions import Session
from governance.core.signing import RULE as SIGNATURE
from governance.core.switches import Mode, Scope, Switch
from governance.core.tickets import MoveTicket, Ticket, TicketState
from governance.core.transitions import consumption


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
    accounts: tuple[Account, ...]
    amounts: dict[Unit, int]
    on_exhausted: OnExhausted
    expires_us: int | None
    can_wait: bool
    now_us: int


@dataclass(frozen=True, slots=True)
class Admit:
    """May run, with these holds; `ticket` is consumed by this admission, `grant` counts it."""

    holds: tuple[Hold, ...]
    ticket: MoveTicket | None
    rule: str
    grant: UseGrant | None = None


@dataclass(frozen=True, slots=True)
class ParkFor:
    """Waits for a person."""

    rule: str
    reason: str
    chain: Chain


@dataclass(frozen=True, slots=True)
class DeferUntil:
    """Not before `until_us` or, with a switch, not before its release."""

    until_us: int
    rule: str
    reason: str
    switch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    rule: str
    reason: str
    guidance: str | None = None
    suggest: tuple[str, ...] = ()


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
    rule: str
    reason: str


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


def budgets_gate(snapshot: Snapshot) -> Refusal | None:
    """A budget that this action is charged to has no room for it."""
    short = exhausted(snapshot.accounts, snapshot.amounts)
    if short is None:
        return None
    wanted = snapshot.amounts[short.unit]
    reason = (
        f"{short.id} has {max((short.limit or 0) - short.posted - short.held, 0)} {short.unit} left, this needs "
        f"{wanted} (limit {short.limit}, used {short.posted}, held {short.held}, resets {iso(short.resets_us)})"
    )
    match snapshot.on_exhausted:
        case OnExhausted.DEFER:
            return DeferUntil(short.resets_us, f"budget:{short.unit}", reason)
        case OnExhausted.DENY:
            return Refuse(f"budget:{short.unit}", reason)
        case OnExhausted.STOP:
            rule = f"budget:{short.unit}"
            # Money that is only held may come back, and one action that is too large for it all says nothing of it.
            used = short.posted + (short.held if short.unit is Unit.ACTIONS else 0)
            used_up = wanted <= (short.limit or 0) < used + wanted
            return EngageSwitch(Scope.SESSION, snapshot.session.id, rule, reason) if used_up else Refuse(rule, reason)
        case _:
            assert_never(snapshot.on_exhausted)


GATES: tuple[Gate, ...] = (
    switch_gate,
    expiry_gate,
    signature_gate,
    identity_gate,
    policy_gate,
    approval_gate,
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
    )


def without_waiting(refusal: Refusal) -> Refuse | Cancel | EngageSwitch:
    """What a refusal means to a caller that cannot wait."""
    if isinstance(refusal, Refuse | Cancel | EngageSwitch):
        return refusal
    return Refuse(refusal.rule, f"{refusal.reason}; {CANNOT_WAIT}")


def _to_consume(snapshot: Snapshot) -> MoveTicket | None:
    ticket = snapshot.ticket
    if ticket is None or ticket.state is not TicketState.APPROVED or ticket.digest != snapshot.digest:
        return None
    return consumption(ticket, snapshot.now_us)
