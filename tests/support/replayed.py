"""The trail read in its order: whatever was charged, was it to what had been set and loaded until then?

A change of what counts is written while nobody can charge, so events of both lie in the order in which they counted.
"""

import json
from collections.abc import Callable, Iterable, Mapping

from governance.core.budgets import Book, Payer, TokenBudgetConfig, charges_of, parse_budget
from governance.core.digest import canonical_json
from governance.operations.context import Governance

_CHARGED = {"action.admitted": "holds", "budget.used": "posted"}


def misplaced(
    gov: Governance,
    payers: Mapping[str | None, Payer],
    policy: Callable[[str, str], Iterable[TokenBudgetConfig]] | None = None,
) -> tuple[int, list[str]]:
    """How many times a budget's account may have been charged, and what of it was charged to other accounts.

    `payers`: whom everything is charged to by the directory of a hash, None before the first. `policy`: the budgets in
    the policy of whoever is named, in a session that pins that hash; by default those of `gov`.
    """
    found = gov.store.read(
        """SELECT e.kind, e.actor, e.at_us, e.payload, s.policy_hash FROM events e
            JOIN sessions s ON s.id = e.session_id ORDER BY e.id""",
        {},
    )
    budgets: dict[str, TokenBudgetConfig] = {}
    payer, charged, wrong = payers[None], 0, []
    for kind, actor, at_us, text, pinned in found:
        said = json.loads(text) if text else {}
        match kind:
            case "budget.set":
                budgets[said["budget"]] = parse_budget(canonical_json(said["config"]))
            case "budget.taken_back":
                del budgets[said["budget"]]
            case "identities.loaded":
                payer = payers[said["hash"]]
            case "action.admitted" | "budget.used":
                in_policy = gov.policy.budgets if policy is None else policy(actor, pinned)
                due = charges_of(Book(budgets).in_force(in_policy), payer, at_us).accounts
                accounts = {account for account in said[_CHARGED[kind]] if account.startswith("budget:")}
                charged += 1
                if accounts != due.keys():
                    wrong.append(f"{kind} by {actor}: {sorted(accounts)}, not {sorted(due)}")
            case _:
                pass
    return charged, wrong
