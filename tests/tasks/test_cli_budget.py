"""`acp budget` in a terminal."""

from pathlib import Path

import pytest

from governance.clock import SystemClock
from governance.operations.answers import Admitted, Deferred
from tests.support.governed import POLICY, Desk, make_governance
from tests.support.terminal import Terminal

BUDGETS = """
budgets:
  - {id: org-day, identity: {org: acme}, period: daily, max_tokens: 100, on_exhausted: defer}
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path, policy=POLICY + BUDGETS)
    assert terminal.acp("db", "upgrade").code == 0
    terminal.enroll("root", "admin")
    terminal.enroll("ann", "approver")
    return terminal


def test_budgets_are_listed_shown_set_raised_and_reconciled(terminal: Terminal) -> None:
    desk = Desk(make_governance(f"sqlite:///{terminal.database}", policy=POLICY + BUDGETS, clock=SystemClock()))
    run = desk.arrive(desk.submit(org="acme", tokens=90))
    assert isinstance(run, Admitted)
    waits = desk.submit(org="acme", tokens=20)
    assert isinstance(desk.arrive(waits), Deferred)

    (listed,) = terminal.acp("budget", "list", "--json").json["budgets"]
    assert (listed["id"], listed["identity"], listed["period"], listed["set_by"]) == (
        "org-day",
        {"org": "acme"},
        "daily",
        None,
    )
    (shown,) = terminal.acp("budget", "show", "--budget", "org-day", "--json").json["budgets"]
    assert (shown["limit_amount"], shown["held"], shown["left"]) == (100, 90, 10)
    assert "org-day:daily:org=acme" in terminal.acp("budget", "show").out

    raising = ("budget", "raise", "org-day", "--tokens", "50", "--reason", "busy")
    assert terminal.acp(*raising, "--until", "2099-01-01T00:00:00Z").code == 2, "no raise lasts for ever"
    assert terminal.acp(*raising, "--until", "2h", by="ann").code != 0
    assert terminal.acp(*raising, "--until", "2h", "--command-id", "r1").code == 2, "a repeat must say the same"
    raised = terminal.acp(*raising, "--until", "2h", "--json")
    assert raised.code == 0, raised.err
    # The broker is away: what is released is the relay's to publish.
    assert (raised.json["released"], raised.json["published"]) == ([waits.action_id], False)
    assert isinstance(desk.arrive(waits), Admitted)
    assert "50 tokens for everybody" in terminal.acp("budget", "list").out

    setting = ("budget", "set", "each", "--identity", "user=*", "--period", "daily", "--reason", "new")
    assert terminal.acp(*setting).code == 2, "neither a limit nor models"
    done = terminal.acp(*setting, "--max-cost-usd", "1.50", "--soft", "40", "--command-id", "s1")
    assert done.code == 0, done.err
    assert "done before" in terminal.acp(*setting, "--max-cost-usd", "1.50", "--soft", "40", "--command-id", "s1").out
    assert terminal.acp(*setting, "--max-cost-usd", "2.00", "--command-id", "s1").code == 2
    each = next(one for one in terminal.acp("budget", "list", "--json").json["budgets"] if one["id"] == "each")
    assert (each["max_cost_micros"], each["soft"], each["reason"]) == (1_500_000, [40], "new")
    assert terminal.acp("budget", "set", "each", "--remove", "--reason", "over").code == 0
    assert terminal.acp("budget", "set", "each", "--remove", "--reason", "over").code == 1

    assert terminal.acp("budget", "reconcile").code == 0
    desk.gov.store.run("UPDATE accounts SET posted = 1 WHERE scope = 'budget'", {})
    desk.gov.store.close()
    found = terminal.acp("budget", "reconcile", "--json")
    assert (found.code, found.json["ok"], len(found.json["findings"])) == (1, False, 1)

    shown = terminal.acp("policy", "show", "--json").json
    assert [one["id"] for one in shown["budgets"]] == ["org-day"]
    assert "org-day" in terminal.acp("policy", "show").out
    valid = terminal.acp("policy", "validate", str(terminal.folder / "policy.yaml"), "--json").json
    assert valid["budgets"] == 1
