"""A decision of the gates as the change that it makes of the action, and as the answer to whoever asked."""

from dataclasses import replace
from typing import assert_never

from governance.core import admit as core
from governance.core.actions import Lease, State
from governance.core.changes import ActionRef, Author, Change
from governance.core.endings import cancelled
from governance.core.events import Event
from governance.core.ledger import Hold
from governance.core.tickets import OpenTicket
from governance.core.transitions import admitted, deferred, denied, model_denied, parked
from governance.operations.answers import Admission, Admitted, Cancelled, Deferred, Denied, Parked
from governance.operations.charges import exhausted_event
from governance.operations.context import Governance
from governance.operations.sessions import InForce
from governance.operations.switches import payer_of
from governance.store.action_rows import ActionRow


def change_of(
    gov: Governance,
    action: ActionRow,
    force: InForce,
    decision: core.Decision,
    lease: Lease,
    now_us: int,
    epoch: int,
) -> Change:
    """The change that a decision makes; a refusal for want of a budget says so beside it."""
    by = Author(f"worker:{lease.worker_id}", now_us)
    change = _transition(gov, action, force, decision, lease, by, epoch)
    match decision:
        case core.ParkFor(exhausted=short) | core.DeferUntil(exhausted=short) | core.Refuse(exhausted=short) if short:
            assert change.event.state is not None, "a refusal is a transition"
            told = exhausted(action, by, short, outcome=change.event.state, session_id=change.event.session_id)
            # A raise that comes in between has released what waited before it.
            return replace(change, echo=told, epoch=epoch)
        case _:
            return change


def _transition(
    gov: Governance,
    action: ActionRow,
    force: InForce,
    decision: core.Decision,
    lease: Lease,
    by: Author,
    epoch: int,
) -> Change:
    match decision:
        case core.Admit(holds, ticket, rule, grant, override):
            return admitted(
                action.ref,
                by,
                session_id=force.session.id,
                lease=lease,
                holds=holds,
                ticket=ticket,
                rule=rule,
                epoch=epoch,
                grant=grant,
                override=override,
            )
        case core.ParkFor(rule, reason, chain):
            return parked(
                action.ref,
                by,
                OpenTicket(
                    id=gov.new_id(),
                    action_id=action.ref.id,
                    digest=action.digest,
                    rule=rule,
                    reason=reason,
                    policy_hash=force.session.policy_hash,
                    chain=chain,
                    requested_us=by.at_us,
                ),
            )
        case core.DeferUntil(until_us, rule, reason, switch_id):
            return deferred(action.ref, by, until_us=until_us, rule=rule, reason=reason, switch_id=switch_id)
        case core.Cancel(rule, reason):
            return cancelled(action.ref, by, rule=rule, reason=reason, delivered=True)
        case core.EngageSwitch():
            raise AssertionError("engaged before it is written")
        case core.Refuse(rule, reason, guidance, suggest, model=model):
            return denied(
                action.ref,
                by,
                rule=rule,
                reason=reason,
                guidance=guidance,
                suggest=suggest,
                delivered=True,
                echo=None if model is None else model_denied(action.ref, by, model, payer_of(action)),
            )
        case _:
            assert_never(decision)


def answer_of(action: ActionRow, change: Change, decision: core.Decision, holds: tuple[Hold, ...]) -> Admission:
    """What the worker that asked is told, once the change is written."""
    match decision:
        case core.Admit():
            ref = ActionRef(action.ref.id, change.event.session_id, State.RUNNING, change.attempt)
            return Admitted(action, ref, holds)
        case core.ParkFor(rule, reason):
            return Parked(action.ref.id, rule, reason)
        case core.DeferUntil(until_us, _, reason, switch_id):
            return Deferred(action.ref.id, until_us, reason, paused=switch_id is not None)
        case core.Cancel(rule, reason):
            return Cancelled(action.ref.id, rule, reason)
        case core.EngageSwitch():
            raise AssertionError("engaged before it is answered")
        case core.Refuse(rule, reason, guidance, suggest):
            return Denied(action.ref.id, rule, reason, guidance, suggest)
        case _:
            assert_never(decision)


def exhausted(action: ActionRow, by: Author, short: core.Exhausted, *, outcome: str, session_id: str) -> Event:
    """What the trail says of a budget that has no room for the action."""
    return exhausted_event(
        action.ref, by, short, outcome=outcome, session_id=session_id, payer=payer_of(action), model=action.model
    )
