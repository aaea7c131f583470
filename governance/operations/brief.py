"""The brief of a request: everything a person needs to decide it, from the store. Nothing here changes anything."""

import json
from collections.abc import Iterator

from sqlalchemy import RowMapping

from governance.core.actions import State
from governance.core.approvals import parse_chain, parse_votes
from governance.core.briefs import (
    AskedOf,
    Brief,
    BudgetEffect,
    EarlierDecision,
    Edited,
    RecentAction,
    What,
    Who,
    Why,
    decision_of,
    summary_of,
    what_follows,
)
from governance.core.budgets import Payer
from governance.core.ledger import Unit, estimate
from governance.core.sessions import Session
from governance.core.tickets import TicketState
from governance.errors import NotFound
from governance.operations.charges import charges_now
from governance.operations.context import Governance
from governance.operations.sessions import pinned_policy
from governance.operations.switches import board_now
from governance.store import action_reports, events, ledger, sessions, tickets

_RECENT = 5
# An admission is still to come: what it would hold is not in the budgets yet.
_WAITING = (State.QUEUED, State.PARKED, State.DEFERRED)
# What an approval writes; a body's own events have kinds and payloads of its choice.
_APPROVALS = ("ticket.voted", "action.released")


def brief(gov: Governance, ref: str) -> Brief:
    """The brief of the ticket with this id, else of the latest ticket of the action with this id. Raises NotFound."""
    row = tickets.find(gov.store, ref)
    if row is None:
        raise NotFound("ticket", ref, "acp approvals list shows the open ones")
    now_us = gov.clock.now_us()
    session = sessions.at(gov.store, row["stream"], now_us) if row["action_state"] in _WAITING else None
    return Brief(
        ticket=_asked_of(row, now_us),
        what=_what(gov, row),
        why=Why(row["rule"], row["reason"], session is not None and session.policy_hash != row["policy_hash"]),
        who=Who(
            row["agent_id"],
            row["user"],
            row["team"],
            row["org"],
            row["session_id"],
            row["stream"],
            row["correlation_id"],
        ),
        risk=row["risk"],
        model=row["model"],
        cost_micros=row["cost_micros"],
        tokens=row["tokens"],
        charged_to=session.id if session is not None else None,
        budgets=_budgets(gov, row, session, now_us),
        recent=_recent(gov, row),
        earlier=_earlier(gov, row),
    )


def _asked_of(row: RowMapping, now_us: int) -> AskedOf:
    chain, state = parse_chain(row["chain"]), TicketState(row["state"])
    return AskedOf(
        id=row["id"],
        state=state,
        level=row["level"],
        levels=len(chain.levels),
        roles=chain.roles_at(row["level"]),
        votes=parse_votes(row["votes"]),
        wanted=chain.approvals,
        requester_may_approve=chain.requester_may_approve,
        requested_us=row["requested_us"],
        due_us=row["due_us"],
        expires_us=row["expires_us"],
        then=what_follows(
            state,
            chain,
            row["level"],
            due_us=row["due_us"],
            expires_us=row["expires_us"],
            decided_us=row["decided_us"],
            now_us=now_us,
        ),
        decided_us=row["decided_us"],
        decided_by=row["decided_by"],
        decision_reason=row["decision_reason"],
    )


def _what(gov: Governance, row: RowMapping) -> What:
    args, kwargs = json.loads(row["message"])["arguments"]
    return What(
        summary=summary_of(row["action_name"], row["resource"], args, kwargs),
        action_id=row["action_id"],
        action_name=row["action_name"],
        action_state=State(row["action_state"]),
        resource=row["resource"],
        arguments={"args": args, "kwargs": kwargs},
        digest=row["digest"],
        edits=tuple(_edits(gov, row["action_id"])),
    )


def _edits(gov: Governance, action_id: str) -> Iterator[Edited]:
    for event in events.of_action(gov.store, action_id):
        before = json.loads(event.payload).get("digest_before") if event.kind in _APPROVALS else None
        if before is not None:
            yield Edited(event.actor, event.at_us, before)


def _budgets(gov: Governance, row: RowMapping, session: Session | None, now_us: int) -> tuple[BudgetEffect, ...]:
    if session is None:
        return ()
    amounts = estimate(row["cost_micros"], row["tokens"])
    found = ledger.listing(gov.store, session_id=session.id, now_us=now_us)
    found += ledger.listed(gov.store, _charged(gov, row, session.policy_hash, now_us))
    return tuple(_effect(account, amounts[Unit(account["unit"])]) for account in found)


def _charged(gov: Governance, row: RowMapping, policy_hash: str, now_us: int) -> list[str]:
    """The accounts of budgets that it would be charged to."""
    payer = Payer(row["user"], row["team"], row["org"], row["agent_id"], row["stream"])
    return list(charges_now(gov, pinned_policy(gov, policy_hash), payer, now_us, board_now(gov)).accounts)


def _effect(account: RowMapping, amount: int) -> BudgetEffect:
    before = account["posted"] + account["held"]
    return BudgetEffect(
        account_id=account["id"],
        unit=Unit(account["unit"]),
        before=before,
        after=before + amount,
        limit_amount=account["limit_amount"],
        resets_us=account["window_end_us"],
    )


def _recent(gov: Governance, row: RowMapping) -> tuple[RecentAction, ...]:
    if row["agent_id"] is None:
        return ()
    found = action_reports.of_agent(gov.store, row["agent_id"], except_id=row["action_id"], limit=_RECENT)
    return tuple(RecentAction(a["id"], a["name"], State(a["state"]), a["resource"], a["created_us"]) for a in found)


def _earlier(gov: Governance, row: RowMapping) -> tuple[EarlierDecision, ...]:
    found = tickets.decided_like(
        gov.store, rule=row["rule"], action_name=row["action_name"], except_id=row["id"], limit=_RECENT
    )
    return tuple(
        EarlierDecision(
            ticket_id=ticket["id"],
            action_id=ticket["action_id"],
            decision=decision_of(TicketState(ticket["state"])),
            by=ticket["decided_by"],
            reason=ticket["decision_reason"],
            decided_us=ticket["decided_us"],
        )
        for ticket in found
    )
