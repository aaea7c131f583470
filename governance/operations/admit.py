"""Admit: gather one snapshot, let the gates decide, apply the decision while the snapshot still holds; else again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from governance.core import admit as core
from governance.core.actions import TERMINAL, Lease, State, Submission
from governance.core.board import Board
from governance.core.budgets import Charges, Payer
from governance.core.changes import Author, Change
from governance.core.ledger import Account, Hold
from governance.core.policy import ActionFacts, Risk
from governance.core.sessions import account_ids
from governance.core.transitions import identified
from governance.errors import AdmissionUncertain, StoreUnavailable
from governance.operations.answers import (
    Admission,
    Cancelled,
    Deferred,
    Denied,
    Dropped,
    Ended,
    NotSubmitted,
    Parked,
)
from governance.operations.charges import charges_now, end_raises, open_missing, remember_payer
from governance.operations.context import Governance
from governance.operations.enactment import answer_of, change_of, exhausted
from governance.operations.foresight import foreseen, remember
from governance.operations.sessions import InForce, in_force
from governance.operations.snapshots import snapshot
from governance.operations.switches import board_at, board_seen, engage_by_budget, payer_of
from governance.store import actions
from governance.store.action_rows import ActionRow
from governance.store.changes import take

# Every round is caused by another writer's success, so this bound is only a guard against a defect.
_ROUNDS_MAX = 1000
# A message that Celery held back may come a little early.
_EARLY_S = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message in a worker: the action it names and what it would run.

    `stream` and `payer` are what the message says; they only save a round trip, the row decides. `resource` is given
    where the recorded one may not be what the arguments say any more.
    """

    action_id: str
    stream: str
    digest: str
    arguments: Mapping[str, object]
    redelivered: bool
    can_wait: bool = True
    resource: str | None = None
    payer: Payer | None = None
    # Why the message is not what a known key has signed; and whose it is, if that was signed.
    forged: str | None = None
    command_id: str | None = None
    # What was submitted, by what its message says; it saves a round trip where the row says the same.
    said: Submission | None = None


def admit(gov: Governance, arrival: Arrival, lease: Lease) -> Admission:
    """Decides what becomes of a message. On any error nothing may run.

    Raises StoreUnavailable when nothing was written, AdmissionUncertain when the answer to the write was lost.
    """
    stream = arrival.stream
    hint = arrival.payer or Payer(None, None, None, None, stream)
    if stream not in gov.sessions:
        # What a header says opens no session; the row does.
        known = actions.find(gov.store, arrival.action_id)
        if known is None:
            return NotSubmitted()
        stream = known.stream
    said = arrival.said
    for _ in range(_ROUNDS_MAX):
        now_us = gov.clock.now_us()
        force = in_force(gov, stream, now_us)
        seen = board_seen(gov)
        charges = charges_now(gov, force.policy, gov.payers.get(hint, hint), now_us, seen)
        if said is not None:
            # Nobody is refused, deferred or parked but by what the row says.
            admitted, said = _foreseen(gov, arrival, said, force, charges, seen, lease, now_us), None
            if admitted is not None:
                return admitted
            # It may have waited for a lock.
            continue
        gathered = actions.gather(gov.store, arrival.action_id, [*account_ids(force.session.id), *charges.accounts])
        if gathered is None:
            return NotSubmitted()
        remember(gov, gathered.accounts)
        action = gathered.action
        if action.stream != stream:
            stream = action.stream
            continue
        if arrival.forged is not None:
            return Dropped(action.ref.id, arrival.forged)
        if arrival.command_id not in (None, action.command_id):
            return Dropped(action.ref.id, "the message was signed for another action")
        answer = _not_to_decide(gov, action, arrival, now_us)
        if answer is not None:
            return answer
        board = board_at(gov, gathered.epoch)
        if force.epoch != board.epoch:
            # A session may have been turned early: which one is in force is asked anew.
            continue
        if not _charged(gov, action, force, charges, gathered.accounts, board, hint, now_us):
            continue
        decision = _decided(gov, arrival, gathered, force, charges, board, now_us)
        if isinstance(decision, core.EngageSwitch):
            _engage(gov, action, force, decision, lease, now_us, board.epoch)
            continue
        change = change_of(gov, action, force, decision, lease, now_us, board.epoch)
        if gathered.stale:
            change = identified(change, gathered.identity)
        holds = _taken(gov, change, now_us)
        if holds is not None:
            return answer_of(action, change, decision, holds)
    raise StoreUnavailable(gov.store.masked_url, f"action {arrival.action_id} kept moving for {_ROUNDS_MAX} rounds")


def _foreseen(
    gov: Governance,
    arrival: Arrival,
    said: Submission,
    force: InForce,
    charges: Charges,
    board: Board | None,
    lease: Lease,
    now_us: int,
) -> Admission | None:
    """Admitted by what the message says, if the row says the same; None: only a reading can tell."""
    if board is None or board.epoch != force.epoch or board.book.raises_until_us <= now_us:
        return None
    if (said.action_id, said.digest) != (arrival.action_id, arrival.digest) or arrival.forged is not None:
        return None
    if arrival.resource not in (None, said.resource):
        return None
    gathered = foreseen(gov, said, force, charges, board)
    if gathered is None:
        return None
    action = gathered.action
    if charges_now(gov, force.policy, payer_of(action), now_us, board) is not charges:
        return None
    decision = _decided(gov, arrival, gathered, force, charges, board, now_us)
    if not isinstance(decision, core.Admit):
        return None
    change = change_of(gov, action, force, decision, lease, now_us, gathered.epoch)
    holds = _taken(gov, replace(change, recorded=said.charged_to(gathered.identity)), now_us)
    return None if holds is None else answer_of(action, change, decision, holds)


def _decided(
    gov: Governance,
    arrival: Arrival,
    gathered: actions.Gathered,
    force: InForce,
    charges: Charges,
    board: Board,
    now_us: int,
) -> core.Decision:
    facts = _facts(gathered.action, arrival)
    return core.decide(snapshot(gov, gathered, force, charges, board, facts, now_us, can_wait=arrival.can_wait))


def _taken(gov: Governance, change: Change, now_us: int) -> tuple[Hold, ...] | None:
    try:
        return take(gov.store, change)
    except StoreUnavailable as problem:
        raise AdmissionUncertain(problem.url, problem.problem, now_us) from problem


def ended(gov: Governance, action_id: str) -> Ended | Denied | Cancelled | None:
    """The outcome of an action, for whoever else waits for it; None while it has none."""
    action = actions.find(gov.store, action_id)
    return None if action is None or action.ref.state not in TERMINAL else outcome_of(action)


def _not_to_decide(gov: Governance, action: ActionRow, arrival: Arrival, now_us: int) -> Admission | None:
    """What the action's state says before any gate is asked; None when it is queued, due, and this is its message."""
    state = action.ref.state
    if state in TERMINAL:
        # A redelivered message is the one whose worker died on the way to telling Celery.
        if arrival.redelivered or actions.delivered(gov.store, action.ref.id, now_us):
            return outcome_of(action)
        return Dropped(action.ref.id, f"it is {state} and was delivered")
    if state is State.PARKED:
        return Parked(action.ref.id, action.rule or "", action.reason or "")
    if state is State.DEFERRED:
        return Deferred(
            action.ref.id, action.not_before_us or now_us, action.reason or "", paused=action.switch_id is not None
        )
    if state is not State.QUEUED:
        return Dropped(action.ref.id, f"it is {state}")
    if arrival.digest != action.digest:
        return Dropped(action.ref.id, "the message carries other arguments than the ones that were submitted")
    if action.not_before_us is not None and action.not_before_us > now_us + gov.clock.span_us(_EARLY_S):
        return Dropped(action.ref.id, "it is not due yet")
    return None


def _facts(action: ActionRow, arrival: Arrival) -> ActionFacts:
    """The action as the policy looks at it, with what its message would run."""
    return ActionFacts(
        name=action.name,
        risk=Risk(action.risk),
        resource=action.resource if arrival.resource is None else arrival.resource,
        stream=action.stream,
        agent_id=action.agent_id,
        user=action.user,
        team=action.team,
        org=action.org,
        cost_micros=action.cost_micros,
        tokens=action.tokens,
        arguments=arrival.arguments,
        model=action.model,
    )


def _charged(
    gov: Governance,
    action: ActionRow,
    force: InForce,
    charges: Charges,
    accounts: tuple[Account, ...],
    board: Board,
    hint: Payer,
    now_us: int,
) -> bool:
    """Whether `accounts` are all that the action is charged to; if not, the next look finds them."""
    payer = payer_of(action)
    if board.book.raises_until_us <= now_us:
        end_raises(gov, "governance")
        return False
    present = charges_now(gov, force.policy, payer, now_us, board)
    if present is not charges:
        if gov.payers.get(hint, hint) != payer:
            remember_payer(gov, hint, payer)
        if present.accounts.keys() != charges.accounts.keys():
            return False
    return not open_missing(gov, present, accounts, board)


def _engage(
    gov: Governance,
    action: ActionRow,
    force: InForce,
    decision: core.EngageSwitch,
    lease: Lease,
    now_us: int,
    epoch: int,
) -> None:
    by, short = Author(f"worker:{lease.worker_id}", now_us), decision.exhausted
    told = exhausted(action, by, short, outcome="stop", session_id=force.session.id)
    engage_by_budget(gov, decision.scope, decision.scope_id, short.rule, short.reason, told, epoch)


def outcome_of(action: ActionRow) -> Ended | Denied | Cancelled:
    """Of an action that is over."""
    match action.ref.state:
        case State.DENIED:
            return _denied(action)
        case State.CANCELLED:
            return Cancelled(action.ref.id, action.rule or "", action.reason or "")
        case _:
            return Ended(action)


def _denied(action: ActionRow) -> Denied:
    suggest = tuple(json.loads(action.suggest)) if action.suggest else ()
    return Denied(action.ref.id, action.rule or "", action.reason or "", action.guidance, suggest)
