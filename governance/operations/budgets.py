"""Budgets as people change them: one that is set, and a limit that is raised for a while.

Every change takes the next epoch, so no admission is written that did not see it. What waited for room goes on at once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from governance.core.actions import State
from governance.core.budgets import Part, Raise, TokenBudgetConfig
from governance.core.changes import Author, Change
from governance.core.digest import canonical_json, storable
from governance.core.ledger import Unit
from governance.core.principals import Principal
from governance.core.tickets import MoveTicket, TicketState
from governance.core.transitions import released
from governance.core.windows import DAY_US
from governance.errors import InvalidOption, NotFound
from governance.operations.charges import asked_anew, fleet_event
from governance.operations.commanded import fingerprint, first_answer
from governance.operations.context import Governance
from governance.operations.principals import require
from governance.operations.switches import board_now
from governance.policy_file import check_budget
from governance.store import budgets, commands, sweeps
from governance.store.action_rows import ActionRow
from governance.store.changes import apply

_RAISE_US_MAX: Final = 366 * DAY_US
_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """A budget was set, taken back or raised; `repeated` when this command_id had done it before.

    `released` are the actions that waited for room and go on: their messages are to be published.
    """

    budget_id: str
    released: tuple[str, ...]
    repeated: bool = False
    raise_id: str | None = None


@dataclass(frozen=True, slots=True)
class LimitRaise:
    """A raise that lasts."""

    id: str
    who: str | None
    cost_micros: int
    tokens: int
    until_us: int
    reason: str
    raised_by: str


@dataclass(frozen=True, slots=True)
class BudgetInForce:
    """A budget that counts now: of the policy of this process, or set by `set_by` for a reason."""

    budget: TokenBudgetConfig
    set_by: str | None
    reason: str | None
    raises: tuple[LimitRaise, ...]


def set_budget(
    gov: Governance,
    budget_id: str,
    content: Mapping[str, object] | None,
    *,
    by: Principal,
    reason: str,
    command_id: str | None = None,
) -> BudgetChanged:
    """Sets a budget as a policy would have it under `budgets`, or takes back what was set (None); it counts at once.

    Raises InvalidOption, NotAllowed, NotFound, CommandConflict, StoreUnavailable.
    """
    require(by, "operator")
    reason = _reason(reason)
    budget = check_budget({**content, "id": budget_id}) if content is not None else None
    digest = fingerprint("budget-set", budget_id, budget and budget.text, by.name, reason)
    if (first := _earlier(gov, command_id, digest)) is not None:
        # Whoever did it may have died before what waited was let go.
        return replace(first, released=tuple(_let_go(gov, budget_id, by, reason)))
    known = {one.id: one for one in gov.policy.budgets}
    if budget is None and budget_id not in board_now(gov).book.budgets:
        raise NotFound("budget that was set", budget_id, "acp budget list shows them")
    now_us = gov.clock.now_us()
    said = {"config": budget and json.loads(budget.text), "reason": reason}
    event = fleet_event(
        gov, "budget.set" if budget else "budget.taken_back", by.actor, now_us, budget=budget_id, **said
    )
    after = budget or known.get(budget_id)
    changed = BudgetChanged(budget_id, ())
    claim = _Claim(gov, command_id, "budget-set", digest, changed)
    limits = after.limits if after is not None else {}
    if not budgets.set_budget(
        gov.store, budget_id, budget, limits, reason=reason, by=by.actor, event=event, claim=claim
    ):
        return _first(gov, command_id, digest)
    return replace(changed, released=tuple(_let_go(gov, budget_id, by, reason)))


def raise_budget(
    gov: Governance,
    budget_id: str,
    *,
    until_us: int,
    reason: str,
    by: Principal,
    cost_micros: int = 0,
    tokens: int = 0,
    who: str | None = None,
    command_id: str | None = None,
) -> BudgetChanged:
    """Adds to a budget's limits until then, for `who` (such as `org=acme`) or for everybody; what waited goes on.

    Raises InvalidOption, NotAllowed, NotFound, CommandConflict, StoreUnavailable.
    """
    require(by, "operator")
    reason = _reason(reason)
    digest = fingerprint("budget-raise", budget_id, until_us, cost_micros, tokens, who, by.name, reason)
    if (first := _earlier(gov, command_id, digest)) is not None:
        # Whoever did it may have died before what waited was let go.
        return replace(first, released=tuple(_let_go(gov, budget_id, by, reason)))
    now_us = gov.clock.now_us()
    if not now_us < until_us <= now_us + _RAISE_US_MAX:
        raise InvalidOption("until", until_us, "an instant to come, within 366 days")
    found = find_budget(gov, budget_id).budget
    unlimited = [unit for unit, amount in ((Unit.COST, cost_micros), (Unit.TOKENS, tokens)) if amount]
    if not unlimited or not found.limits.keys() >= set(unlimited):
        limited = " or ".join(str(unit) for unit in found.limits) or "nothing"
        raise InvalidOption("raise", ", ".join(unlimited) or "nothing", f"an amount of what it limits: {limited}")
    parts = [part for part in Part if part in found.identity]
    if who is not None and [named.partition("=")[0] for named in who.split(",")] != parts:
        raise InvalidOption("for", who, "one account, such as " + ",".join(f"{part}=..." for part in parts))
    one = Raise(gov.new_id(), budget_id, who, cost_micros, tokens, until_us)
    said = {"who": who, "cost_micros": cost_micros, "tokens": tokens, "until_us": until_us, "reason": reason}
    event = fleet_event(gov, "budget.raised", by.actor, now_us, budget=budget_id, raise_id=one.id, **said)
    changed = BudgetChanged(budget_id, (), raise_id=one.id)
    claim = _Claim(gov, command_id, "budget-raise", digest, changed)
    if not budgets.raise_limit(gov.store, one, reason=reason, by=by.actor, event=event, claim=claim):
        return _first(gov, command_id, digest)
    return replace(changed, released=tuple(_let_go(gov, budget_id, by, reason)))


def list_budgets(gov: Governance) -> list[BudgetInForce]:
    """Every budget that counts now, by id: the policy's of this process, and those that people set."""
    set_by = {row["id"]: row for row in budgets.listing(gov.store) if row["config"] is not None}
    raised: dict[str, list[LimitRaise]] = {}
    for row in budgets.lasting_raises(gov.store):
        names = ("id", "who", "cost_micros", "tokens", "until_us", "reason", "raised_by")
        raised.setdefault(row["budget_id"], []).append(LimitRaise(**{name: row[name] for name in names}))
    return [
        BudgetInForce(
            budget=budget,
            set_by=set_by[budget.id]["set_by"] if budget.id in set_by else None,
            reason=set_by[budget.id]["reason"] if budget.id in set_by else None,
            raises=tuple(raised.get(budget.id, ())),
        )
        for budget in board_now(gov).book.in_force(gov.policy.budgets)
    ]


def find_budget(gov: Governance, budget_id: str) -> BudgetInForce:
    """Raises NotFound."""
    for one in list_budgets(gov):
        if one.budget.id == budget_id:
            return one
    raise NotFound("budget", budget_id, "acp budget list shows those of the policy and those that were set")


def _let_go(gov: Governance, budget_id: str, by: Principal, reason: str) -> Iterator[str]:
    """Releases what a budget defers and parks; those that find no room wait again."""
    after = (0, "")
    rule = f"budget:{budget_id}"
    while page := sweeps.waiting_for(gov.store, rule, after=after, limit=_BATCH):
        after = (page[-1].created_us, page[-1].ref.id)
        for action in page:
            if apply(gov.store, _released(gov, action, Author(by.actor, gov.clock.now_us()), reason)):
                yield action.ref.id


def _released(gov: Governance, action: ActionRow, by: Author, reason: str) -> Change:
    ticket = action.ticket
    if action.ref.state is not State.PARKED or ticket is None:
        return released(action.ref, by, cause="raised")
    move = MoveTicket(ticket.id, ticket.step, TicketState.PENDING, TicketState.APPROVED, by.at_us, by.actor, reason)
    return asked_anew(gov, action.ref, by, cause="raised", ticket=move)


def _reason(reason: str) -> str:
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail")
    return storable(reason)


class _Claim:
    """Takes a command_id in the transaction of what it does; always, when there is none."""

    def __init__(self, gov: Governance, command_id: str | None, kind: str, digest: str, changed: BudgetChanged) -> None:
        self._gov, self._command_id, self._kind, self._digest = gov, command_id, kind, digest
        self._answer = canonical_json({"budget_id": changed.budget_id, "raise_id": changed.raise_id})

    def __call__(self, connection: Connection) -> bool:
        if self._command_id is None:
            return True
        now_us = self._gov.clock.now_us()
        return commands.claim(connection, self._command_id, self._kind, self._digest, self._answer, now_us)


def _earlier(gov: Governance, command_id: str | None, digest: str) -> BudgetChanged | None:
    said = first_answer(gov, command_id, digest)
    if said is None:
        return None
    return BudgetChanged(said["budget_id"], (), repeated=True, raise_id=said["raise_id"])


def _first(gov: Governance, command_id: str | None, digest: str) -> BudgetChanged:
    first = _earlier(gov, command_id, digest)
    assert first is not None, "the claim was taken"
    return first
