"""The subprocesses that actions start: a pool child leads a process group of its own, and they die with it.

Signals to the child alone would leave them behind. One that leaves the group (`start_new_session`) is on its own.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_DEATH_S = 1.0


# The process that leads a group of its own because of `lead_group`; a fork of it does not.
_leader = 0


def lead_group() -> None:
    """Called in a pool child before it runs anything."""
    global _leader
    with suppress(PermissionError):
        # It leads a session already, and so a group.
        os.setpgid(0, 0)
    _leader = os.getpid()


def kill_group(child_pid: int) -> None:
    """Ends a pool child, if it still lives, and whatever its actions started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child_pid, signal.SIGKILL)


def has_ended(child_pid: int) -> bool:
    """Whether a child of this process that was killed is gone, waited for a little; left for its pool to reap."""
    end_s = time.monotonic() + _DEATH_S
    while time.monotonic() < end_s:
        try:
            if os.waitid(os.P_PID, child_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:
            # Reaped already.
            return True
        time.sleep(0.005)
    return False


def kill_offspring() -> None:
    """Ends what the action that just stopped has started and left; only in a pool child, which runs one at a time."""
    own = os.getpid()
    if own != _leader or os.getpgrp() != own:
        return
    for pid in _group_of(own):
        if pid != own:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _group_of(group: int) -> list[int]:
    if not _PROC.is_dir():
        listed = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False, timeout=5)
        return [int(line) for line in listed.stdout.split()]
    found = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # pid (name, which may contain anything) state ppid pgrp ...
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found.append(int(folder.name))
    return found
