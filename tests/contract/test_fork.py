"""A process forks while another of its threads writes: what that thread had locked is not locked in the child."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.fleet import ROOT

_PROGRAM = """
import os, threading
from acp_tasks import bootstrap
store = bootstrap.governance().store
store.run("CREATE TABLE notes (who VARCHAR(9))", {})
inside, forked = threading.Event(), threading.Event()

def write():
    with store.transaction() as connection:
        connection.exec_driver_sql("INSERT INTO notes VALUES ('thread')")
        inside.set()
        forked.wait(0.5)

thread = threading.Thread(target=write)
thread.start()
inside.wait()
child = os.fork()
if not child:
    status = 1
    try:
        store.run("INSERT INTO notes VALUES ('child')", {})
        status = 0
    finally:
        os._exit(status)
forked.set()
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child could not write"
store.run("INSERT INTO notes VALUES ('parent')", {})
print(*sorted(row[0] for row in store.read("SELECT who FROM notes", {})))
"""


def test_a_child_writes_although_a_thread_of_its_parent_wrote_while_it_was_made(
    database_url: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "ACP_DATABASE_URL": database_url, "ACP_STATE_DIR": str(tmp_path / "state")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["child", "parent", "thread"]), done.stderr
