"""Budgets in use: what an identity is charged to, and the accounts of a window opened by whoever needs them first."""

from dataclasses import replace
from typing import Final

from governance.core.admit import Exhausted
from governance.core.board import Board
from governance.core.budgets import Book, Charges, Payer, charges_of
from governance.core.changes import ActionRef, Author, Change, event_of
from governance.core.events import TOKEN_BUDGET_EXHAUSTED, Event
from governance.core.ledger import Account
from governance.core.models import named
from governance.core.policy import Policy
from governance.core.tickets import MoveTicket
from governance.core.transitions import released
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.sessions import in_force
from governance.operations.switches import board_now
from governance.store import budgets, sweeps

_KEPT: Final = 4096
_NOTHING: Final = Charges()


def charges_now(gov: Governance, policy: Policy, payer: Payer, now_us: int, board: Board | None) -> Charges:
    """What `payer` is charged to under a policy and a board (None: none was seen yet); kept until it changes.

    The caller knows that the board is the present one, or finds out before it writes.
    """
    if not policy.budgets and (board is None or not board.book.budgets):
        return _NOTHING
    key = (-1 if board is None else board.epoch, policy.hash, payer)
    known = gov.charges.get(key)
    if known is None or known.until_us <= now_us or now_us < known.since_us:
        if len(gov.charges) >= _KEPT:
            gov.charges.clear()
        book = Book() if board is None else board.book
        known = gov.charges[key] = charges_of(book.in_force(policy.budgets), payer, now_us)
    return known


def remember_payer(gov: Governance, hint: Payer, payer: Payer) -> None:
    """A message that says `hint` is of an action that is charged to `payer`: the next like it needs one look only."""
    if len(gov.payers) >= _KEPT:
        gov.payers.clear()
    gov.payers[hint] = payer


def open_missing(gov: Governance, charges: Charges, found: tuple[Account, ...], board: Board) -> bool:
    """Opens the accounts of `charges` that were not `found`; False when all of them were."""
    known = {account.id for account in found}
    missing = [one for account_id, one in charges.accounts.items() if account_id not in known]
    if missing:
        budgets.open_accounts(gov.store, missing, board.book, board.epoch)
    return bool(missing)


def end_raises(gov: Governance, actor: str) -> int:
    """Takes back the raises that are over; how many. Cheap when there is none."""
    now_us = gov.clock.now_us()
    ended = 0
    for one in board_now(gov).book.raises:
        if one.until_us <= now_us:
            event = fleet_event(gov, "budget.raise_ended", actor, now_us, budget=one.budget_id, raise_id=one.id)
            ended += budgets.end_raise(gov.store, one, event)
    return ended


def asked_anew(gov: Governance, ref: ActionRef, by: Author, *, cause: str, ticket: MoveTicket) -> Change:
    """Lets an action go on that a budget has parked; the budget is asked again."""
    change = released(ref, by, cause=cause, ticket=ticket)
    # The decision that the policy wanted, and got before the budget was asked, counts again.
    before = sweeps.approval_of(gov.store, ref.id)
    return change if before is None else replace(change, columns={**change.columns, "ticket_id": before})


def exhausted_event(
    ref: ActionRef,
    by: Author,
    short: Exhausted,
    *,
    outcome: str,
    session_id: str,
    payer: Payer,
    model: str | None,
) -> Event:
    """What the trail says beside a refusal: which budget had no room for whom, how it stood, and what became of it.

    `model` is the one that was called, or else the one that the action declares.
    """
    account = short.account
    payload: dict[str, object] = {
        "account": account.id,
        "unit": account.unit,
        "limit": account.limit,
        "posted": account.posted,
        "held": account.held,
        "wanted": short.wanted,
        "resets_us": account.resets_us,
        "outcome": outcome,
        **named(payer),
    }
    if model is not None:
        payload["model"] = model
    if short.charge is not None:
        payload |= {"budget": short.charge.budget.id, "who": short.charge.who}
    return event_of(TOKEN_BUDGET_EXHAUSTED, ref, by, None, payload, session_id=session_id)


def fleet_event(gov: Governance, kind: str, actor: str, now_us: int, **payload: object) -> Event:
    """What the trail of the fleet itself says of a budget."""
    session_id = in_force(gov, CONTROL_STREAM, now_us).session.id
    return Event(session_id, kind, actor, now_us, payload={key: said for key, said in payload.items() if said})
