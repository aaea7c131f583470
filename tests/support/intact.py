"""What must be true of a shop once everything has ended: nothing lost, stuck, doubled or out of balance."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from governance.operations import audit
from governance.operations.context import Governance
from tests.support.books import assert_agree

# Tasks of the shop that write one line, `<command_id> <attempt>`, as their effect.
COUNTED: Final = (
    "t.effect",
    "t.once",
    "t.dies",
    "t.dies_once",
    "t.waits",
    "t.takes",
    "t.takes_once",
    "t.asked",
)


def unsettled(gov: Governance) -> list[tuple[Any, ...]]:
    """What has neither ended nor waits for a person, or has ended and nobody was told: what to look at first."""
    found = gov.store.read(
        """SELECT id, name, state, attempt, lease_worker, lease_child, published_us, publish_count, not_before_us,
                delivered_us FROM actions WHERE state IN ('queued', 'running', 'deferred')
                OR (delivered_us IS NULL AND state IN ('succeeded', 'failed', 'denied', 'cancelled'))""",
        {},
    )
    return [tuple(row) for row in found]


def violations(gov: Governance, folder: Path, effects: list[str]) -> list[str]:
    """Everything that is wrong, a line each. What is not settled by now counts as lost or stuck."""
    found = [f"not settled: {row}" for row in unsettled(gov)]
    found += audit.verify(gov).problems
    try:
        assert_agree(gov)
    except AssertionError as problem:
        found.append(f"the books do not agree: {problem}")
    for account, held in gov.store.read("SELECT id, held FROM accounts WHERE held <> 0", {}):
        found.append(f"account {account} holds {held} and nothing runs")
    for id, state in gov.store.read("SELECT id, state FROM actions WHERE lease_worker IS NOT NULL", {}):
        found.append(f"action {id} is {state} and has a lease")
    found += [f"{path} is left in the spool" for path in (folder / "state" / "spool").glob("*")]
    return found + _effects(gov, effects)


def _effects(gov: Governance, effects: list[str]) -> list[str]:
    """At most one effect of what must not run twice, at least one of what may; never two of one attempt."""
    found = [f"attempt {line!r} did it {n} times" for line, n in Counter(effects).items() if n > 1 and _attempt(line)]
    done = Counter(line.split()[0] for line in effects)
    names = ", ".join(f"'{name}'" for name in COUNTED)
    for command_id, name, idempotent, state in gov.store.read(
        f"SELECT command_id, name, idempotent, state FROM actions WHERE name IN ({names})", {}
    ):
        count = done[command_id]
        what = f"{name} {command_id}, which is {state}, "
        if count > 1 and not idempotent:
            found.append(f"{what}was done {count} times")
        if not count and state == "succeeded":
            found.append(f"{what}was never done")
        if count and state not in ("succeeded", "failed", "in_doubt"):
            found.append(f"{what}was done")
    return found


def _attempt(line: str) -> bool:
    return line.split()[-1].isdigit()
