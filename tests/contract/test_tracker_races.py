"""Usage outside of actions while budgets are set, directories loaded and windows turned: each is posted once, to
whatever counted at that moment.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from governance.core.budgets import Payer
from governance.core.instants import SECOND_US
from governance.directory_file import parse_directory
from governance.operations import audit, budgets
from governance.operations.directory import load
from governance.operations.reconcile import reconcile
from governance.operations.tracker import TokenBudgetTracker
from governance.policy_file import parse_policy
from tests.support.charged import DAY_S
from tests.support.clocks import InterruptingClock, TickingClock
from tests.support.governed import ANN, POLICY, Desk, ManualClock, make_governance
from tests.support.racer import RACERS, race
from tests.support.replayed import misplaced

BUDGETS: Final = """
budgets:
  - {id: each, identity: {user: "*"}, period: daily, max_tokens: 100000}
  - {id: org, identity: {org: "*"}, period: monthly, timezone: Europe/Berlin, max_tokens: 100000}
"""
FIRST = parse_directory("{version: 1, orgs: [o1, o2], teams: {t1: o1, t2: o2}, users: {ann: t1}}")
MOVED = parse_directory("{version: 1, orgs: [o1, o2], teams: {t1: o1, t2: o2}, users: {ann: t2}}")
PAYERS: Final = {
    None: Payer("ann", None, None, None, "default"),
    FIRST.hash: Payer("ann", "t1", "o1", None, "default"),
    MOVED.hash: Payer("ann", "t2", "o2", None, "default"),
}
WIDER: Final = {"identity": {"user": "*"}, "period": "daily", "max_tokens": 150_000}
TEAM: Final = {"identity": {"team": "*"}, "period": "weekly", "max_tokens": 100_000}
MIDNIGHT_US: Final = -(-ManualClock().at_us // (DAY_S * SECOND_US)) * DAY_S * SECOND_US


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    load(gov, FIRST, by=ANN)
    yield Desk(gov)
    gov.store.close()


def changes(desk: Desk) -> list[Callable[[], object]]:
    """What changes whom a usage is charged to, and what takes it back."""

    def set_it(budget_id: str, config: dict[str, Any] | None) -> Callable[[], object]:
        return lambda: budgets.set_budget(desk.gov, budget_id, config, by=ANN, reason="race")

    return [
        set_it("team", TEAM),
        lambda: load(desk.gov, MOVED, by=ANN),
        set_it("each", WIDER),
        set_it("team", None),
        lambda: load(desk.gov, FIRST, by=ANN),
        set_it("each", None),
    ]


def usages(desk: Desk) -> int:
    return int(desk.gov.store.read("SELECT count(*) FROM events WHERE kind = 'budget.used'", {})[0][0])


def posted(desk: Desk) -> list[tuple[str, int]]:
    """(source, tokens) of each usage outside of actions; every account that the trail names was charged with it."""
    told = desk.gov.store.read("SELECT actor, payload FROM events WHERE kind = 'budget.used' ORDER BY actor", {})
    found = desk.gov.store.read(
        "SELECT action_id, account_id, posted_delta FROM entries WHERE action_id LIKE 'usage:%'", {}
    )
    charged = {actor: json.loads(payload)["posted"] for actor, payload in told}
    entries = [(actor, account, amount) for actor, posts in charged.items() for account, amount in posts.items()]
    assert sorted(tuple(row) for row in found) == sorted(entries)
    assert all(charged.values()), told
    return [(actor, max(posts.values())) for actor, posts in charged.items()]


def test_no_usage_is_lost_or_counted_twice_whatever_is_changed_meanwhile(
    desk: Desk, database_url: str, tmp_path: Path
) -> None:
    """Half of the racers have another policy version, and midnight comes while they are at it."""
    other = f"{POLICY}\nbudgets: [{{id: mine, identity: {{user: ann}}, period: unlimited, max_tokens: 100000}}]"
    for name, text in (("one", POLICY + BUDGETS), ("other", other)):
        (tmp_path / name).write_text(text)
    in_other = parse_policy(other)
    times, step_us = 6, 1000
    desk.gov = replace(desk.gov, clock=TickingClock(MIDNIGHT_US - 40 * step_us, step_us))
    with ThreadPoolExecutor(1) as pool:
        argument = f"{times}:{MIDNIGHT_US - 70 * step_us}:{step_us}:{tmp_path / 'one'}:{tmp_path / 'other'}"
        running = pool.submit(race, database_url, "record", argument, RACERS)
        rounds = 0
        while not running.done() or rounds % 6:
            changes(desk)[rounds % 6]()
            rounds += 1
            # Everybody may be told to look again, but not for ever.
            written = usages(desk)
            while usages(desk) == written and not running.done():
                pass
        seen = running.result()
    assert rounds >= 6
    assert seen["recorded"] == seen["repeated"] == RACERS // 2 * times
    assert seen["HasRoom"] == RACERS * times
    mine = {f"usage:{number}-{turn}" for number in (1, 3) for turn in range(times)}

    def policy(actor: str, pinned: str) -> Any:
        """An action has its session's policy, other usage that of the process."""
        theirs = actor in mine if actor.startswith("usage:") else pinned == in_other.hash
        return in_other.budgets if theirs else desk.gov.policy.budgets

    assert sum(tokens for _, tokens in posted(desk)) + RACERS * times == seen["tokens"]
    charged, wrong = misplaced(desk.gov, PAYERS, policy)
    assert wrong == []
    assert charged == (RACERS + RACERS // 2) * times
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


def test_a_change_in_the_middle_of_a_recording_is_seen(desk: Desk, database_url: str) -> None:
    """A directory that is loaded or a budget that is set after its accounts were found: it is charged to others."""
    other = make_governance(database_url, policy=POLICY + BUDGETS)
    # Twice: the second time, every account is open.
    for number, change in enumerate(changes(Desk(other)) * 2):
        clock = InterruptingClock(at_look=1, happens=change)
        tracker = TokenBudgetTracker(replace(desk.gov, clock=clock))
        assert not tracker.record_usage(user="ann", tokens=5, command_id=f"c{number:02}").repeated
        assert clock.looks > 1, "it looked again"
    other.store.close()
    assert misplaced(desk.gov, PAYERS) == (12, [])
    assert posted(desk) == [(f"usage:c{number:02}", 5) for number in range(12)]
    assert reconcile(desk.gov).findings == ()


def test_a_usage_is_of_one_moment_also_where_a_window_turns_meanwhile(desk: Desk) -> None:
    looks = 0
    for step_us in range(1, 12):
        clock = TickingClock(MIDNIGHT_US - 6, step_us)
        gov = replace(desk.gov, clock=clock, sessions={}, charges={})
        TokenBudgetTracker(gov).record_usage(user="ann", tokens=5, command_id=f"c{step_us}")
        looks += 1
    charged, wrong = misplaced(desk.gov, PAYERS)
    assert (charged, wrong) == (looks, [])
    moved = desk.gov.store.read(
        """SELECT count(*) FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE NOT (a.window_start_us <= e.at_us AND e.at_us < a.window_end_us)""",
        {},
    )
    assert moved[0][0] == 0
