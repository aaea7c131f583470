"""Child programs that end when they are told to, and at the latest when their owner does.

Each runs in a session and process group of its own, so that Ctrl-C in a terminal reaches the owner only, who then ends
them in order. Each writes to a log, and is ended by its own pid: a signal it can answer, then SIGKILL of the group.

On Linux the kernel kills a child when its owner dies, also by kill -9. What the child itself started is not covered:
Celery's pool does the same for its own children, and PostgreSQL's notice that their parent is gone.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")
_PR_SET_PDEATHSIG: Final = 1
_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 64 * 1024
_POLL_S: Final = 0.02
# Looked up before any fork: the child between fork and exec must not import or load anything.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# The kernel ties a child to the thread that forked it, and a passing thread would take it along: those borrow this one.
_lasting_thread = ThreadPoolExecutor(1, thread_name_prefix="starts-programs")


class ProcessFailed(RuntimeError):
    """A child program did not do what it was started for; the message ends with its last words."""


class Process:
    """One program, started on construction. It has to be stopped or killed, also when it ended by itself."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        group: int | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._log_start = file.tell()
            options: dict[str, Any] = {
                "env": dict(environment) if environment is not None else None,
                "cwd": cwd,
                "stdin": subprocess.DEVNULL,
                "stdout": file,
                "stderr": subprocess.STDOUT,
                "start_new_session": True,
                "user": user,
                "group": group,
                "extra_groups": [] if group is not None else None,
                # Runs after the user was changed, which would have cleared it.
                "preexec_fn": _die_with(os.getpid()) if _prctl is not None else None,
            }
            self._popen = _popen([os.fspath(part) for part in argv], options)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs. Looking does not reap it: until stop or kill, its number and its group's stay its own."""
        if self._popen.returncode is not None or not hasattr(os, "waitid"):
            return self._popen.poll()
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self._popen.poll()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def wait_until(self, look: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
        """Looks until it sees something true. Raises ProcessFailed when the program ends or the time is over."""
        end = time.monotonic() + deadline_s
        while True:
            found = look()
            if found:
                return found
            if self.returncode is not None:
                raise ProcessFailed(f"{self.name} ended with {self.kill()} before {what}; {self.last_words()}")
            if time.monotonic() > end:
                raise ProcessFailed(f"{self.name}: not {what} within {deadline_s:g} s; {self.last_words()}")
            time.sleep(_POLL_S)

    def wait(self, deadline_s: float = 30.0) -> int:
        """Waits for its end and returns its return code. Raises ProcessFailed when the time is over."""
        if not self._ends_within(deadline_s):
            raise ProcessFailed(f"{self.name}: not ended within {deadline_s:g} s; {self.last_words()}")
        return self.kill()

    def words(self) -> str:
        """What was written to its log since it was started; of very much, the end."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        lines = self.words().splitlines()[-_TAIL_LINES:]
        return f"the end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)

    def stop(self, grace_s: float = 10.0, sign: int = signal.SIGTERM) -> int:
        """Asks it to end, then makes it and all of its group. Returns its return code."""
        if self.returncode is None:
            os.kill(self.pid, sign)
            self.thaw()  # A frozen program would not hear the question.
            self._ends_within(grace_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL, for it and for its group. Returns its return code."""
        self.abort()
        return self._popen.wait()

    def abort(self) -> None:
        """SIGKILL without waiting, so that a signal handler may call it; stop or kill has to follow."""
        self._signal_group(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_group(signal.SIGCONT)

    def _ends_within(self, deadline_s: float) -> bool:
        end = time.monotonic() + deadline_s
        while self.returncode is None:
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True

    def _signal_group(self, sign: int) -> None:
        if self._popen.returncode is None:
            # macOS refuses, rather than misses, a group in which nobody is left alive.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, sign)


class Stoppable(Protocol):
    """What a Stack ends: a Process, or a server around one."""

    def stop(self) -> object: ...

    def abort(self) -> None: ...


S = TypeVar("S", bound=Stoppable)


class StopRequested(KeyboardInterrupt):
    """SIGINT or SIGTERM reached the owner of a Stack; `sign` is which."""

    def __init__(self, sign: int) -> None:
        super().__init__(signal.Signals(sign).name)
        self.sign = sign


class Stack:
    """Everything that was started, ended in reverse order: on leaving, on an error, on SIGINT and on SIGTERM.

    The first signal raises StopRequested in the main thread. Another one, or one that comes while things are ending
    anyway, kills what is left at once: nobody has to wait for a worker that does not want to end.
    """

    def __init__(self) -> None:
        self._things: list[Stoppable] = []
        self._ending = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Stack":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {sign: signal.signal(sign, self._heed) for sign in (signal.SIGINT, signal.SIGTERM)}
        return self

    def add(self, thing: S) -> S:
        """Ends it on leaving. A server is added before it is started, so that no signal falls in between."""
        self._things.append(thing)
        return thing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        try:
            with contextlib.ExitStack() as endings:
                for thing in self._things:
                    endings.callback(thing.stop)
        finally:
            for sign, handler in self._handlers.items():
                signal.signal(sign, handler if handler is not None else signal.SIG_DFL)

    def _heed(self, sign: int, frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise StopRequested(sign)
        for thing in self._things:
            thing.abort()


def _popen(argv: list[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, **options)

    if threading.current_thread() is threading.main_thread():
        return start()
    return _lasting_thread.submit(start).result()


def _die_with(owner_pid: int) -> Callable[[], None]:
    def between_fork_and_exec() -> None:
        assert _prctl is not None
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner_pid:
            os._exit(1)  # The owner died before it could be asked for.

    return between_fork_and_exec
