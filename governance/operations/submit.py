"""Submit: claim the command_id, let the policy decide, record the action with its message, its ticket and its event."""

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from governance.core import identity
from governance.core.actions import State, Submission
from governance.core.admit import CANNOT_WAIT
from governance.core.approvals import Chain
from governance.core.events import Event
from governance.core.grants import Wanted
from governance.core.identity import Resolved
from governance.core.policy import Allow, Deny, Park, Policy, Steer, Verdict, decide
from governance.core.signing import sign
from governance.core.tickets import OpenTicket
from governance.errors import CommandConflict
from governance.operations.context import Governance
from governance.operations.directory import identity_now, identity_of
from governance.operations.grants import find_grant
from governance.operations.sessions import InForce, in_force
from governance.store import actions, events, submissions


@dataclass(frozen=True, slots=True)
class Recorded:
    """A new action, in the state the policy gave it."""

    action_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Repeated:
    """The command_id was used before with the same content: this is the action it made."""

    action_id: str
    state: State


Submitted: TypeAlias = Recorded | Repeated


@dataclass(frozen=True, slots=True)
class _Entry:
    """How the policy's verdict is written down."""

    state: State
    rule: str
    reason: str
    guidance: str | None = None
    suggest: tuple[str, ...] = ()
    ticket: OpenTicket | None = None


def submit(gov: Governance, submission: Submission) -> Submitted:
    """Records `submission`; budgets are not asked here, they are held when it runs.

    Raises CommandConflict when the command_id, or the action's id, was used with other content.
    """
    now_us = gov.clock.now_us()
    force = in_force(gov, submission.stream, now_us)
    submission, verdict = _decided(gov, submission, force.policy)
    if gov.signing is not None:
        submission = replace(submission, signature=sign(gov.signing, submission.signable))
    entry = _entry(gov, submission, force, verdict, now_us)
    recorded = submissions.record(
        gov.store,
        submission,
        session_id=force.session.id,
        state=entry.state,
        event=_event(submission, force.session.id, entry, now_us),
        ticket=entry.ticket,
        rule=entry.rule,
        reason=entry.reason,
        guidance=entry.guidance,
        suggest=entry.suggest,
    )
    if recorded is not None:
        gov.directory.seen(recorded.directory_epoch)
        if recorded.ends_us <= now_us:
            # It was turned early, unknown to this process. Its admission is in the next one; so is what comes after it.
            gov.sessions.pop(submission.stream, None)
        return Recorded(submission.action_id, entry.state)
    return _first(gov, submission)


def refuse(gov: Governance, submission: Submission, rule: str, reason: str) -> None:
    """Records a message that may not even be submitted, as denied and told. Nothing that it claims is taken over.

    Done again for the same message it changes nothing.
    """
    now_us = gov.clock.now_us()
    session_id = in_force(gov, submission.stream, now_us).session.id
    entry = _Entry(State.DENIED, rule, reason)
    event = _event(submission, session_id, entry, now_us)
    submissions.record(
        gov.store,
        submission,
        session_id=session_id,
        state=entry.state,
        event=event,
        ticket=None,
        rule=rule,
        reason=reason,
    )
    actions.delivered(gov.store, submission.action_id, now_us)


def _decided(gov: Governance, submission: Submission, policy: Policy) -> tuple[Submission, Verdict]:
    """The submission under its whole identity, and what policy says of it.

    An action that is let through is asked again by its admission, so what this process remembers of the directory will
    do. Nobody is refused, and no person asked, but by what the directory says now.
    """
    resolved = identity_of(gov, submission.claimed)
    verdict = _verdict(policy, submission.charged_to(resolved), resolved)
    if not isinstance(verdict, Allow) and gov.directory.remembers:
        resolved = identity_now(gov, submission.claimed)
        verdict = _verdict(policy, submission.charged_to(resolved), resolved)
    return submission.charged_to(resolved), verdict


def _verdict(policy: Policy, submission: Submission, resolved: Resolved) -> Verdict:
    refusal = identity.refusal(resolved, policy.require_identity)
    return decide(policy, submission.facts()) if refusal is None else Deny(*refusal)


def _first(gov: Governance, submission: Submission) -> Repeated:
    first = actions.find_by_command(gov.store, submission.command_id, submission.action_id)
    assert first is not None, "a conflicting row cannot vanish: actions are never deleted while they count"
    same = first.digest == submission.digest or (
        # An approver, or its own retry, may have put other arguments in place since.
        first.name == submission.name and events.first_digest(gov.store, first.ref.id) == submission.digest
    )
    if first.command_id != submission.command_id or not same:
        raise CommandConflict(submission.command_id, f"action {first.ref.id} ({first.name})")
    return Repeated(first.ref.id, first.ref.state)


def _entry(gov: Governance, submission: Submission, force: InForce, verdict: Verdict, now_us: int) -> _Entry:
    match verdict:
        case Allow(rule, reason):
            return _Entry(State.QUEUED, rule, reason)
        case Park(rule, reason, chain) if _granted(gov, submission, force, rule, chain, now_us):
            # Whether the grant still lasts is decided when it is used, by the admission.
            return _Entry(State.QUEUED, rule, reason)
        case Park(rule, reason) if not submission.can_wait:
            return _Entry(State.DENIED, rule, f"{reason}; {CANNOT_WAIT}")
        case Park(rule, reason, chain):
            ticket = OpenTicket(
                id=gov.new_id(),
                action_id=submission.action_id,
                digest=submission.digest,
                rule=rule,
                reason=reason,
                policy_hash=force.session.policy_hash,
                chain=chain,
                requested_us=now_us,
            )
            return _Entry(State.PARKED, rule, reason, ticket=ticket)
        case Steer(rule, reason, guidance, suggest):
            return _Entry(State.DENIED, rule, reason, guidance, suggest)
        case Deny(rule, reason):
            return _Entry(State.DENIED, rule, reason)
        case _:
            assert_never(verdict)


def _granted(gov: Governance, submission: Submission, force: InForce, rule: str, chain: Chain, now_us: int) -> bool:
    wanted = Wanted(
        rule=rule,
        chain_hash=chain.hash,
        action_name=submission.name,
        agent_id=submission.agent_id,
        user=submission.user,
        session_id=force.session.id,
        resource=submission.resource,
        uses=1,
        cost_micros=submission.cost_micros,
        now_us=now_us,
    )
    return find_grant(gov, wanted, used_before=None) is not None


def _event(submission: Submission, session_id: str, entry: _Entry, now_us: int) -> Event:
    payload: dict[str, object] = {
        "name": submission.name,
        "command_id": submission.command_id,
        "digest": submission.digest,
        "risk": submission.risk,
        "correlation_id": submission.correlation_id,
        "rule": entry.rule,
    }
    asked = {
        "agent": submission.agent_id,
        "user": submission.user,
        "team": submission.team,
        "org": submission.org,
        "resource": submission.resource,
        "model": submission.model,
        "cost_micros": submission.cost_micros,
        "tokens": submission.tokens,
        "reason": entry.reason if entry.state is not State.QUEUED else None,
        "guidance": entry.guidance,
        "ticket": entry.ticket.id if entry.ticket else None,
    }
    payload |= {key: value for key, value in asked.items() if value}
    return Event(
        session_id=session_id,
        kind="action.submitted",
        actor=submission.agent_id or "producer",
        at_us=now_us,
        action_id=submission.action_id,
        attempt=0,
        state=entry.state,
        payload=payload,
    )
