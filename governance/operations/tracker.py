"""Budgets for code that uses models outside of actions: ask before, record afterwards, in the same ledger.

Whom it is charged to is what the directory says now, as it is for actions: leaving out the org is no way around its
budget.
Only budgets are charged here: a session's account is an action's. Nothing is held between the two calls, so what is
recorded counts even when it is more than was left. Whoever can, makes an action of it instead.

The trail's `budget.used` says what was used and by whom, also when no budget has a limit of it: usage reports go by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from sqlalchemy import Connection

from governance.core.admit import Exhausted
from governance.core.budgets import UNITS, Charges, Payer, model_patterns, resets
from governance.core.digest import canonical_json
from governance.core.events import TOKEN_BUDGET_EXHAUSTED, USAGE_RECORDED, Event
from governance.core.identity import Identity, refusal
from governance.core.ledger import Account, Unit, exhausted
from governance.core.models import budget_refusal, named
from governance.core.plans import OnExhausted
from governance.core.switches import Scope
from governance.errors import InvalidOption
from governance.operations.charges import charges_now, end_raises, open_missing
from governance.operations.commanded import TakenError, fingerprint, first_answer
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.directory import identity_now
from governance.operations.sessions import in_force
from governance.operations.switches import board_now, switch_of_budget
from governance.store import commands, ledger, switches
from governance.store.epochs import epoch_in, exclude_admissions
from governance.store.events import append_in


@dataclass(frozen=True, slots=True)
class HasRoom:
    """Every budget has room for it, now; `budgets` are their ids."""

    budgets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasNoRoom:
    """The tightest budget without room for it, or one that is not for its model, named as a refusal names it; or why
    nobody can be charged.
    """

    rule: str
    reason: str


Checked: TypeAlias = HasRoom | HasNoRoom


@dataclass(frozen=True, slots=True)
class UsageRecorded:
    """It is posted; `exhausted` are the budgets that have nothing left now. `repeated`: this command_id had done it."""

    budgets: tuple[str, ...]
    exhausted: tuple[str, ...]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Usage:
    """What was used, by whom, and of which model if that is said."""

    payer: Payer
    amounts: Mapping[Unit, int]
    model: str | None

    @property
    def who(self) -> dict[str, str]:
        """As the trail names them."""
        return {**named(self.payer), **({"model": self.model} if self.model is not None else {})}


class _MovedError(Exception):
    """The epoch is another one than the charges were found at."""


class TokenBudgetTracker:
    """The budgets of `gov`, for code outside of actions. Amounts are micro-USD and tokens, 0 or more."""

    def __init__(self, gov: Governance) -> None:
        self._gov = gov

    def check_budget(
        self,
        *,
        user: str | None = None,
        team: str | None = None,
        org: str | None = None,
        agent_id: str | None = None,
        stream: str = "default",
        model: str | None = None,
        cost_micros: int = 0,
        tokens: int = 0,
    ) -> Checked:
        """Whether every budget is for this model and has room for so much, without holding it.

        A call uses something, so there has to be room for at least 1 of each unit that is limited. Only budgets are
        asked: `ModelGovernor` says what else the policy says of models. Raises InvalidOption, StoreUnavailable.
        """
        amounts = {unit: max(amount, 1) for unit, amount in _amounts(cost_micros, tokens).items()}
        resolved = identity_now(self._gov, Identity(user, team, org))
        refused = refusal(resolved, self._gov.policy.require_identity)
        if refused is not None:
            return HasNoRoom(*refused)
        charges, _ = self._opened(Payer.of(resolved.identity, agent_id, stream))
        wrong = None if model is None else budget_refusal(model, model_patterns(charges.charges))
        if wrong is not None:
            return HasNoRoom(wrong.rule, wrong.reason)
        short = exhausted(ledger.accounts(self._gov.store, list(charges.accounts)), amounts)
        if short is None:
            return HasRoom(tuple(charge.budget.id for charge in charges.charges))
        charge, unit = charges.accounts[short.id]
        found = Exhausted(short, amounts[unit], charge, charge.budget.on_exhausted)
        return HasNoRoom(found.rule, found.reason)

    def record_usage(
        self,
        *,
        user: str | None = None,
        team: str | None = None,
        org: str | None = None,
        agent_id: str | None = None,
        stream: str = "default",
        model: str | None = None,
        cost_micros: int = 0,
        tokens: int = 0,
        command_id: str | None = None,
    ) -> UsageRecorded:
        """Posts what was used to every budget of this identity, all or none, once for each command_id.

        It is in the trail and in usage reports also where no budget has a limit of it; `model` is of which it was.
        It was used, so it counts also where the identity contradicts the directory: then for whom the directory says.
        A budget that it uses up and that says `on_exhausted: stop` engages the switch of its scope with it.
        Raises InvalidOption, CommandConflict when the command_id was used for other content, StoreUnavailable.
        """
        amounts = _amounts(cost_micros, tokens)
        of_model = () if model is None else (model,)
        digest = fingerprint("usage", user, team, org, agent_id, stream, cost_micros, tokens, *of_model)
        if (first := self._earlier(command_id, digest)) is not None:
            return first
        while True:
            epoch = board_now(self._gov).epoch
            payer = Payer.of(self._charged(Identity(user, team, org)), agent_id, stream)
            charges, now_us = self._opened(payer)
            session_id = in_force(self._gov, CONTROL_STREAM, now_us).session.id
            try:
                with self._gov.store.transaction() as connection:
                    usage = _Usage(payer, amounts, model)
                    return self._posted(connection, session_id, usage, charges, command_id, digest, now_us, epoch=epoch)
            except _MovedError:
                # A budget was set or a directory loaded meanwhile: whom it is charged to is asked anew.
                continue
            except TakenError:
                taken = self._earlier(command_id, digest)
                assert taken is not None, "it was taken"
                return taken

    def _charged(self, claimed: Identity) -> Identity:
        """Whom the directory charges, whatever of the claim it has to pass over."""
        for said in (claimed, replace(claimed, org=None)):
            resolved = identity_now(self._gov, said)
            if resolved.contradiction is None:
                return resolved.identity
        return identity_now(self._gov, Identity(claimed.user)).identity

    def _opened(self, payer: Payer) -> tuple[Charges, int]:
        """What an identity is charged to now, with every account open; and when that was."""
        gov = self._gov
        while True:
            board = board_now(gov)
            now_us = gov.clock.now_us()
            if board.book.raises_until_us <= now_us:
                end_raises(gov, "governance")
                continue
            charges = charges_now(gov, gov.policy, payer, now_us, board)
            if not open_missing(gov, charges, ledger.accounts(gov.store, list(charges.accounts)), board):
                return charges, now_us

    def _posted(
        self,
        connection: Connection,
        session_id: str,
        usage: _Usage,
        charges: Charges,
        command_id: str | None,
        digest: str,
        now_us: int,
        *,
        epoch: int,
    ) -> UsageRecorded:
        source = f"usage:{command_id or self._gov.new_id()}"
        posts = {account_id: usage.amounts[unit] for account_id, (_, unit) in charges.accounts.items()}
        before = ledger.locked_in(connection, list(posts))
        after = [replace(account, posted=account.posted + posts[account.id]) for account in before]
        used_up = [account for account in after if not account.has_room(1)]
        stopping = _stopping(used_up, charges, usage.payer)
        # After the accounts, as everybody locks them: whoever sets a budget locks accounts, then epochs.
        if stopping:
            exclude_admissions(self._gov.store, connection)
        if epoch_in(self._gov.store, connection) != epoch:
            raise _MovedError
        recorded = UsageRecorded(
            budgets=tuple(charge.budget.id for charge in charges.charges),
            exhausted=tuple(dict.fromkeys(charges.accounts[account.id][0].budget.id for account in used_up)),
        )
        answer = canonical_json({"budgets": list(recorded.budgets), "exhausted": list(recorded.exhausted)})
        if command_id is not None and not commands.claim(connection, command_id, "usage", digest, answer, now_us):
            raise TakenError
        for account in before:
            ledger.post_in(connection, source, account, posts[account.id], now_us)
        told = {
            "posted": posts,
            **{str(unit): usage.amounts[unit] for unit in UNITS},
            "stream": usage.payer.stream,
            **usage.who,
        }
        append_in(connection, Event(session_id, USAGE_RECORDED, source, now_us, payload=told))
        for account in used_up:
            append_in(connection, _exhausted(session_id, source, account, charges, usage, now_us))
        for (scope, scope_id), (rule, reason) in stopping.items():
            switch, event = switch_of_budget(self._gov, scope, scope_id, rule, reason, now_us, session_id)
            switches.engage_in(connection, switch, by=event.actor, event=event)
        return recorded

    def _earlier(self, command_id: str | None, digest: str) -> UsageRecorded | None:
        said = first_answer(self._gov, command_id, digest)
        if said is None:
            return None
        return UsageRecorded(tuple(said["budgets"]), tuple(said["exhausted"]), repeated=True)


def _amounts(cost_micros: int, tokens: int) -> dict[Unit, int]:
    for name, value in (("cost_micros", cost_micros), ("tokens", tokens)):
        if value < 0:
            raise InvalidOption(name, value, "0 or more")
    return {Unit.COST: cost_micros, Unit.ACTIONS: 0, Unit.TOKENS: tokens}


def _stopping(
    used_up: Iterable[Account], charges: Charges, payer: Payer
) -> Mapping[tuple[Scope, str], tuple[str, str]]:
    """Whom the budgets that are used up stop, each with the rule and the reason.

    As for actions: money that is only held may come back, and a limit of 0 refuses without stopping anybody.
    """
    found = {}
    for account in used_up:
        charge, _ = charges.accounts[account.id]
        if charge.budget.on_exhausted is OnExhausted.STOP and account.limit and account.posted >= account.limit:
            stood = f"limit {account.limit}, used {account.posted}, held {account.held}, {resets(account.resets_us)}"
            found[charge.scope(payer)] = charge.budget.rule, f"{charge.name} has no {account.unit} left ({stood})"
    return found


def _exhausted(session_id: str, source: str, account: Account, charges: Charges, usage: _Usage, now_us: int) -> Event:
    charge, _ = charges.accounts[account.id]
    payload = {
        "budget": charge.budget.id,
        "who": charge.who,
        "account": account.id,
        "unit": account.unit,
        "limit": account.limit,
        "posted": account.posted,
        "held": account.held,
        "resets_us": account.resets_us,
        "outcome": "recorded",
        **usage.who,
    }
    return Event(session_id, TOKEN_BUDGET_EXHAUSTED, source, now_us, payload=payload)
