"""Programs end with all of their group, in order, and with whoever started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from acp_tasks.fleet.process import Process, ProcessFailed, Stack, StopRequested
from tests.support.fleet import ROOT, eventually


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


def python(stack: Stack, tmp_path: Path, code: str, name: str = "sample") -> Process:
    return stack.add(Process(name, [sys.executable, "-c", code], tmp_path / f"{name}.log"))


def sleeper(stack: Stack, tmp_path: Path, name: str = "sample") -> Process:
    return stack.add(Process(name, ["sleep", "60"], tmp_path / f"{name}.log"))


def said(process: Process, word: str) -> str:
    return process.wait_until(lambda: process.words() if word in process.words() else "", f"saying {word}")


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def test_looking_at_the_return_code_leaves_the_number_to_its_program(stack: Stack, tmp_path: Path) -> None:
    process = stack.add(Process("short", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "short.log"))
    assert process.wait_until(lambda: process.returncode, "ended") == 3
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert process.stop() == 3
    assert not psutil.pid_exists(process.pid)
    assert process.returncode == process.stop() == process.kill() == 3


def test_what_it_leaves_behind_in_its_group_ends_too(stack: Stack, tmp_path: Path) -> None:
    code = "import subprocess, time; print('left', subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    process = python(stack, tmp_path, code)
    left = int(said(process, "\n").split()[1])
    assert process.stop() == -signal.SIGTERM
    eventually(lambda: not alive(left), "the sleeper is gone")


def test_a_frozen_program_is_asked_to_end_and_hears_it(stack: Stack, tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, lambda *_: exit(7)); print('up', flush=True); time.sleep(60)"
    process = python(stack, tmp_path, code)
    said(process, "up")
    process.freeze()
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "frozen")
    assert process.stop() == 7


def test_last_words_are_those_of_this_run_and_only_the_end(tmp_path: Path, stack: Stack) -> None:
    log = tmp_path / "sample.log"
    log.write_text("from an earlier run\n")
    process = python(stack, tmp_path, "print('early'); print('x\\n' * 100_000); print('last'); raise SystemExit(1)")
    with pytest.raises(ProcessFailed) as failure:
        process.wait_until(lambda: False, "ready")
    assert str(failure.value).endswith("  last")
    assert "early" not in str(failure.value)
    assert len(str(failure.value)) < 1000


def test_a_program_that_does_not_end_in_time_is_reported(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="not ended within"):
        sleeper(stack, tmp_path).wait(deadline_s=0.1)


def test_a_program_started_by_a_passing_thread_outlives_it(stack: Stack, tmp_path: Path) -> None:
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(sleeper(stack, tmp_path)))
    thread.start()
    thread.join()
    # The kernel would have killed it on the thread's end, which join() does not quite wait for.
    with pytest.raises(ProcessFailed, match="not ended within"):
        started[0].wait(deadline_s=0.3)


class Ending:
    """Notes that it was stopped."""

    def __init__(self, name: str, endings: list[str], problem: BaseException | None = None) -> None:
        self.name, self.endings, self.problem = name, endings, problem

    def stop(self) -> None:
        self.endings.append(self.name)
        if self.problem is not None:
            raise self.problem

    def abort(self) -> None:
        self.endings.append(f"{self.name} at once")


def test_a_stack_ends_in_reverse_order_and_to_the_last_also_after_an_error() -> None:
    endings: list[str] = []

    def started() -> None:
        with Stack() as stack:
            stack.add(Ending("broker", endings))
            stack.add(Ending("worker", endings, OSError("no end")))
            stack.add(Ending("beat", endings))

    with pytest.raises(OSError, match="no end"):
        started()
    assert endings == ["beat", "worker", "broker"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stack_and_the_next_one_hurries(sign: signal.Signals) -> None:
    endings: list[str] = []
    before = signal.getsignal(sign)

    def interrupted_twice() -> None:
        with Stack() as stack:
            stack.add(Ending("broker", endings))
            try:
                signal.raise_signal(sign)
            finally:
                signal.raise_signal(sign)

    with pytest.raises(StopRequested) as request:
        interrupted_twice()
    assert request.value.sign == sign
    assert endings == ["broker at once", "broker"]
    assert signal.getsignal(sign) == before


OWNER = """
import pathlib, sys, time
from acp_tasks.fleet.process import Process, Stack
folder = pathlib.Path(sys.argv[1])
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
with Stack() as stack:
    first = stack.add(Process("first", ["sleep", "60"], folder / "first.log"))
    second = stack.add(Process("second", [sys.executable, "-c", stubborn], folder / "second.log"))
    second.wait_until(lambda: "up" in second.words(), "up")
    print(first.pid, second.pid, flush=True)
    time.sleep(60)
"""


def owner_of_two(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert owner.stdout is not None
    return owner, [int(pid) for pid in owner.stdout.readline().split()]


def test_ctrl_c_ends_every_program_and_twice_at_once(tmp_path: Path) -> None:
    owner, pids = owner_of_two(tmp_path)
    with owner:
        assert len(pids) == 2
        start = time.monotonic()
        while owner.poll() is None and time.monotonic() < start + 30:
            owner.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert owner.returncode != 0
    # The second would have taken its ten seconds of grace.
    assert time.monotonic() - start < 8
    assert not any(alive(pid) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_kill_9_of_the_owner_ends_every_program(tmp_path: Path) -> None:
    owner, pids = owner_of_two(tmp_path)
    with owner:
        assert len(pids) == 2
        owner.kill()
    eventually(lambda: not any(alive(pid) for pid in pids), "both are gone")
