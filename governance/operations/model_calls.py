"""Calling a model inside an action: who may is asked at each call, and what it used is written down after it.

Between the two the attempt holds what the call may use (`governance.middleware.allowance`). What is refused is in the
trail, whatever the body makes of the refusal.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from governance.core.admit import Exhausted
from governance.core.budgets import model_patterns
from governance.core.changes import Author, event_of
from governance.core.model_calls import ModelCall
from governance.core.models import ModelAllowed, ModelGovernor, ModelPolicy, ModelRefused, named
from governance.core.plans import OnExhausted
from governance.core.policy import Policy, Risk
from governance.core.prices import UnitPrices
from governance.core.switches import stopping
from governance.core.transitions import model_denied
from governance.operations.answers import Admitted
from governance.operations.charges import charges_now, exhausted_event
from governance.operations.context import Governance
from governance.operations.switches import board_at, payer_of, subject_of
from governance.operations.top_up import NoRoom
from governance.price_table import prices_of
from governance.store import actions, events
from governance.store import model_calls as store


@dataclass(frozen=True, slots=True)
class MayCall:
    """By this access, at these prices if the input is as long as was estimated; None: nobody knows a price."""

    access: ModelAllowed
    prices: UnitPrices | None
    models: ModelPolicy
    asked_us: int
    api_url: str | None

    def prices_for(self, input_tokens: int) -> UnitPrices | None:
        """What counts once it is known how long the input was: beyond a size, some models cost more."""
        model = self.access.model
        return prices_of(self.models, model, input_tokens=input_tokens, at_us=self.asked_us, api_url=self.api_url)


@dataclass(frozen=True, slots=True)
class MayNotCall:
    """The trail says so."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotOwned:
    """The attempt no longer runs its action: nothing it does counts."""


Asked: TypeAlias = MayCall | MayNotCall | NotOwned


def ask(
    gov: Governance, running: Admitted, policy: Policy, model: str, *, input_tokens: int, api_url: str | None
) -> Asked:
    """Whether this attempt may call `model` now: switches, tiers, exceptions, budgets. Raises StoreUnavailable.

    `policy` is its session's, `input_tokens` an estimate, `api_url` where the model is asked for: they find its price.
    """
    ref, action, now_us = running.ref, running.action, gov.clock.now_us()
    owned, epoch = actions.standing(gov.store, ref.id, ref.attempt)
    if not owned:
        return NotOwned()
    board = board_at(gov, epoch)
    switch = stopping(board.engaged, replace(subject_of(action, ref.session_id), model=model))
    payer = payer_of(action)
    if switch is not None:
        access: ModelAllowed | ModelRefused = ModelRefused(model, switch.rule, switch.reason)
    else:
        budgets = model_patterns(charges_now(gov, policy, payer, now_us, board).charges)
        access = ModelGovernor(policy.models, now_us, budgets).check_access(model, payer, Risk(action.risk))
    if isinstance(access, ModelRefused):
        by = Author(f"attempt:{ref.id}:{ref.attempt}", now_us)
        if not events.append_owned(gov.store, model_denied(ref, by, access, payer)):
            return NotOwned()
        return MayNotCall(access.rule, access.reason)
    prices = prices_of(policy.models, model, input_tokens=input_tokens, at_us=now_us, api_url=api_url)
    return MayCall(access, prices, policy.models, now_us, api_url)


def no_room(gov: Governance, running: Admitted, model: str, short: NoRoom) -> MayNotCall | NotOwned:
    """A call did not fit into a budget: the refusal that names it. Raises StoreUnavailable."""
    ref, now_us = running.ref, gov.clock.now_us()
    payer = payer_of(running.action)
    found = Exhausted(short.account, short.wanted, short.charge, OnExhausted.DENY)
    by = Author(f"attempt:{ref.id}:{ref.attempt}", now_us)
    told = exhausted_event(
        ref, by, found, outcome="model call refused", session_id=ref.session_id, payer=payer, model=model
    )
    return MayNotCall(found.rule, found.reason) if events.append_owned(gov.store, told) else NotOwned()


def record(gov: Governance, running: Admitted, call: ModelCall) -> bool:
    """Writes down a call that is over; False when the attempt no longer runs its action. Raises StoreUnavailable."""
    ref = running.ref
    by = Author(f"attempt:{ref.id}:{ref.attempt}", call.at_us)
    event = event_of("model.called", ref, by, None, {**call.payload(), **named(payer_of(running.action))})
    return store.record(gov.store, ref, call, event)
