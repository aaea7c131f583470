"""`acp approvals watch`: in a pipe and on a terminal."""

import json
import os
import select
import signal
import threading
import time

import pytest

from tests.support.asking import action, row
from tests.support.governed import Desk
from tests.support.terminal import Terminal


@pytest.mark.parametrize("as_json", [True, False])
def test_a_watch_in_a_pipe_tells_what_comes_and_goes(terminal: Terminal, desk: Desk, as_json: bool) -> None:
    waited = action(desk, "case.refund")
    watch = terminal.start("approvals", "watch", "--interval", "0.2", *(["--json"] if as_json else []))
    deadline = threading.Timer(60, watch.kill)
    deadline.start()
    try:
        assert watch.stdout is not None

        def told() -> tuple[str, str]:
            assert watch.stdout is not None
            line = watch.stdout.readline()
            assert line, watch.stderr and watch.stderr.read()
            if as_json:
                parsed = json.loads(line)
                return parsed["change"], parsed["id"]
            return line.split()[0], line.split()[1]

        ticket = row(desk, "tickets", waited.action_id)["id"]
        assert told() == ("new", ticket)
        made = action(desk)
        new = row(desk, "tickets", made.action_id)["id"]
        assert told() == ("new", new)
        terminal.enroll("ann", "approver:team-lead")
        assert terminal.acp("approvals", "approve", ticket, "--reason", "ok", by="ann").code == 0
        assert told() == ("changed", ticket)
        assert terminal.acp("approvals", "deny", new, "--reason", "no").code == 0
        assert told() == ("ended", new)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=30) == 0
    finally:
        deadline.cancel()
        if watch.poll() is None:
            watch.kill()
        watch.communicate()


def test_a_watch_on_a_terminal_is_a_table(terminal: Terminal, desk: Desk) -> None:
    made = action(desk, "case.refund", case_id="c1", amount_usd="\x1b[2J")
    ours, theirs = os.openpty()
    watch = terminal.start("approvals", "watch", "--interval", "0.2", stdout=theirs, COLUMNS="200", TERM="xterm")
    os.close(theirs)
    try:
        shown = b""
        end = time.monotonic() + 30
        while row(desk, "tickets", made.action_id)["id"].encode() not in shown and time.monotonic() < end:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        assert b"team-lead" in shown
        assert b"\x1b[2J" not in shown
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=30) == 0
    finally:
        if watch.poll() is None:
            watch.kill()
        watch.communicate()
        os.close(ours)
