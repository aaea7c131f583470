"""kill -9 in the middle of a prune: what is left is verified, and the next one takes it to its end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from governance.operations import audit, retention
from tests.support.fleet import ROOT
from tests.support.governed import ANN, Desk, ManualClock, make_governance

_WEEK_S = 7 * 24 * 3600
_PRUNE = """
import sys
from governance.operations import retention
from tests.support.governed import ANN, ManualClock, make_governance
gov = make_governance(sys.argv[1], clock=ManualClock(int(sys.argv[2])))
retention.prune(gov, older_than_s=7 * 24 * 3600, by=ANN, reason="killed")
"""


def test_a_prune_killed_in_the_middle_is_verified_and_ended_by_the_next(database_url: str, tmp_path: Path) -> None:
    clock = ManualClock()
    gov = make_governance(database_url, clock=clock)
    desk = Desk(gov)
    for _ in range(2):
        for _ in range(3):
            desk.finish(desk.admitted(desk.submit()))
        clock.pass_s(3600)
    clock.pass_s(_WEEK_S)
    desk.finish(desk.admitted(desk.submit()))
    done = subprocess.run(
        [sys.executable, "-c", _PRUNE, database_url, str(clock.at_us)],
        env={**os.environ, "ACP_FAULT": f"after_first_of_pruned:{tmp_path / 'died'}"},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    broken = audit.verify(gov)
    assert broken.problems == ()
    (anchor,) = broken.anchors
    assert not anchor.cleared
    assert list(audit.replay(gov, anchor.session_id)) == [], "it is pruned, whatever is left of it"
    left = "SELECT count(*) FROM events WHERE session_id = :id"
    assert gov.store.read(left, {"id": anchor.session_id})[0][0] == anchor.events

    pruned = retention.prune(gov, older_than_s=_WEEK_S, by=ANN, reason="the rest")
    assert len(pruned.pruned) == 1, "the other session"
    found = audit.verify(gov)
    assert found.problems == ()
    assert [one.cleared for one in found.anchors] == [True, True]
    assert gov.store.read(left, {"id": anchor.session_id})[0][0] == 0
    gov.store.close()
