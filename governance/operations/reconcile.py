"""Reconcile: what the ledger says of itself must agree, as of one moment, also while the fleet is at work."""

from dataclasses import dataclass

from governance.core.budgets import TokenBudgetConfig, budget_of
from governance.operations.context import Governance
from governance.store import budgets, ledger
from governance.store.budgets import OpenAccount


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many accounts were looked at, and what of them does not agree."""

    accounts: int
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def reconcile(gov: Governance) -> Reconciled:
    """Every account is the sum of its entries and of its stripes, every limit is what was set and raised, and every
    hold is a live attempt's. Raises StoreUnavailable.
    """
    findings: list[str] = []
    with gov.store.snapshot() as reader:
        findings += [
            f"account {account}: held {held} and posted {posted}, its entries sum to {sum_held} and {sum_posted}"
            for account, held, sum_held, posted, sum_posted in ledger.unbalanced(reader)
        ]
        findings += [
            f"account {account}: {rows} rows of {stripes}, with shares of {shares} of its limit {limit}"
            for account, rows, stripes, limit, shares in ledger.unshared(reader)
        ]
        findings += [
            f"action {action_id}: attempt {attempt} holds {account} and does not run"
            for action_id, attempt, account in ledger.orphan_holds(reader)
        ]
        book = budgets.book(reader)
        for account in budgets.open_ones(reader, gov.clock.now_us()):
            budget_id, who = budget_of(account.scope_id)
            raised = sum(
                one.amount(account.unit) for one in book.raises if one.budget_id == budget_id and one.who in (None, who)
            )
            findings += _limit(account, raised, book.budgets.get(budget_id))
        return Reconciled(ledger.account_count(reader), tuple(findings))


def _limit(account: OpenAccount, raised: int, budget: TokenBudgetConfig | None) -> list[str]:
    """A policy's limit is the one of the policy that an account was opened under; what people set is known."""
    found = []
    if account.raised != raised:
        found.append(f"account {account.id}: raised by {account.raised}, the raises that last add up to {raised}")
    if budget is not None and account.unit in budget.limits:
        limit = budget.limits[account.unit]
        if account.limit - account.raised != limit and account.scope_id.startswith(f"{budget.id}:{budget.period}:"):
            found.append(f"account {account.id}: limit {account.limit - account.raised}, it was set to {limit}")
    return found
