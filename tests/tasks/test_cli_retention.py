"""Pruning on the command line: who may, what is said of it, what is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.clock import SystemClock
from tests.support.governed import Desk, make_governance
from tests.support.terminal import Terminal

_DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def old(terminal: Terminal, desk: Desk) -> Iterator[str]:
    """The id of a session of a hundred days ago in which one action ran; `desk` has the present."""
    made = make_governance(f"sqlite:///{terminal.database}", clock=_Ago(), policy=terminal.policy)
    past = Desk(made)
    past.finish(past.admitted(past.submit()))
    yield str(made.store.read("SELECT id FROM sessions WHERE stream = 'default'", {})[0][0])
    made.store.close()


class _Ago(SystemClock):
    def now_us(self) -> int:
        return super().now_us() - 100 * _DAY_US


def test_old_history_is_pruned_and_the_rest_verified(terminal: Terminal, desk: Desk, old: str, tmp_path: Path) -> None:
    desk.finish(desk.admitted(desk.submit()))
    prune = ("audit", "prune", "--older-than", "90d")
    plan = terminal.acp(*prune, "--dry-run", "--json", by="nobody").json
    assert (plan["dry_run"], [one["session_id"] for one in plan["pruned"]]) == (True, [old])
    assert terminal.acp(*prune).code == 2, "a reason is needed"
    terminal.enroll("vic", "viewer")
    assert terminal.acp(*prune, "--reason", "x", by="vic").code == 3
    assert terminal.acp("audit", "prune", "--older-than", "1m", "--dry-run").code == 2
    assert "no session ended before" in terminal.acp("audit", "prune", "--older-than", "101d", "--dry-run").out

    terminal.enroll("olga", "operator")
    archive = tmp_path / "old.jsonl"
    pruned = terminal.acp(*prune, "--reason", "90 days are enough", "--export", str(archive), by="olga")
    assert pruned.code == 0
    assert "1 sessions with 4 events pruned, 0 kept" in pruned.out
    verified = terminal.acp("audit", "verify")
    assert verified.code == 0
    assert f"session {old}: pruned at event 4, hash " in verified.out
    (anchor,) = terminal.acp("audit", "verify", "--json").json["anchors"]
    assert (anchor["session_id"], anchor["seq"], anchor["events"]) == (old, 4, 4)

    replayed = terminal.acp("events", "replay", "--session", old)
    assert (replayed.code, replayed.out) == (0, "")
    assert f"was pruned at event 4 with hash {anchor['hash']}" in replayed.err

    archived = terminal.acp("audit", "verify", "--file", str(archive), "--json").json
    assert (archived["ok"], archived["events"], archived["sessions"][0]["hash"]) == (True, 4, anchor["hash"])
    archive.write_text("".join(archive.read_text().splitlines(keepends=True)[:-1]))
    assert terminal.acp("audit", "verify", "--file", str(archive)).code == 1
    assert terminal.acp("audit", "verify", "--file", str(tmp_path / "none")).code == 2
