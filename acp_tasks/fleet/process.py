"""Child programs that end when they are told to, and at the latest when their parent does.

Each runs in a process group of its own, writes to a log file, and is ended by its own pid: SIGTERM, then SIGKILL of the
group. On Linux the kernel kills it when its parent dies, also by kill -9; the parent is the thread that started it, so
start children from the main thread.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
_PR_SET_PDEATHSIG: Final = 1
_TAIL_LINES: Final = 20
# Loaded before any fork: the child between fork and exec must not import.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessFailed(RuntimeError):
    """A child program did not do what it was started for; the message ends with its last words."""


class Process:
    """One program, started on construction."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [os.fspath(part) for part in argv],
                env=dict(environment) if environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=[] if group is not None else None,
                # Runs after the user was changed, which would have cleared it.
                preexec_fn=_die_with_parent if _libc is not None else None,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def wait_until(self, look: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
        """Looks until it sees something true. Raises ProcessFailed when the program ends or the time is over."""
        end = time.monotonic() + deadline_s
        while True:
            found = look()
            if found:
                return found
            if self.returncode is not None:
                raise ProcessFailed(f"{self.name} ended with {self.returncode} before {what}; {self.last_words()}")
            if time.monotonic() > end:
                raise ProcessFailed(f"{self.name}: not {what} within {deadline_s:g} s; {self.last_words()}")
            time.sleep(0.02)

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return f"the end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)

    def stop(self, grace_s: float = 10.0, sign: int = signal.SIGTERM) -> int:
        """Asks it to end, then makes it. Returns its return code."""
        if self.returncode is None:
            self._popen.send_signal(sign)
            try:
                return self._popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.wait()

    def kill(self) -> None:
        """SIGKILL, for it and for everything it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def freeze(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


def _die_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
