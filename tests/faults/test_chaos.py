"""The long mix of work and faults, for a moment: that it works, and that it sees what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

from governance.core.actions import Lease
from tests.support.fleet import ROOT
from tests.support.governed import Desk, make_governance
from tests.support.intact import violations


def test_a_moment_of_chaos_violates_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--minutes", "0.1", "--seed", "7", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["violations"] == []
    assert answer["actions"] > 10
    assert answer["faults"] >= 1


def test_what_is_wrong_is_seen(sqlite_url: str, tmp_path: Path) -> None:
    gov = make_governance(sqlite_url)
    desk = Desk(gov, Lease("w", "c"))
    once = desk.submit(name="t.once", idempotent=False)
    desk.finish(desk.admitted(once))
    undone = desk.submit(name="t.effect")
    desk.finish(desk.admitted(undone))
    assert violations(gov, tmp_path, [f"{once.command_id} 1", f"{undone.command_id} 1"]) == []
    gov.store.run("UPDATE accounts SET posted = posted + 1 WHERE unit = 'actions'", {})
    stuck = desk.submit(name="t.takes")
    desk.admitted(stuck)
    spool = tmp_path / "state" / "spool"
    spool.mkdir(parents=True)
    (spool / "a.json").touch()
    found = "\n".join(
        violations(gov, tmp_path, [f"{once.command_id} 1", f"{once.command_id} 1", f"{stuck.command_id} 1"])
    )
    gov.store.close()
    for said in (
        f"not settled: ('{stuck.action_id}'",
        "its entries sum to",
        "and nothing runs",
        f"action {stuck.action_id} is running and has a lease",
        "a.json is left in the spool",
        f"attempt '{once.command_id} 1' did it 2 times",
        f"t.once {once.command_id}, which is succeeded, was done 2 times",
        f"t.effect {undone.command_id}, which is succeeded, was never done",
        f"t.takes {stuck.command_id}, which is running, was done",
    ):
        assert said in found
