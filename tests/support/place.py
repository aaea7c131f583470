"""A folder in which `acp` is run as people start it, what it did, and the processes of its fleet."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.fleet import ROOT

# The shell of whoever runs this may point elsewhere: a run starts what is its own.
ELSEWHERE = {"ACP_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "ACP_BROKER_URL": "redis://127.0.0.1:1/0"}


@dataclass
class Place:
    """A folder with a policy, in which `acp` is run."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "policy.yaml").write_text((ROOT / "policy.yaml").read_text())

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(
        self, *args: str, environment: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACP_")}
        return subprocess.Popen(
            [sys.executable, "-m", "acp_tasks.cli", *args],
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "ACP_STATE_DIR": str(self.state), **(environment or ELSEWHERE)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def acp(self, *args: str, environment: Mapping[str, str] | None = None) -> "Ended":
        process = self.start(*args, environment=environment)
        with killed_at_last(process):
            out, err = process.communicate(timeout=90)
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)

    def environment(self) -> dict[str, str]:
        """What the run says that other commands need."""
        lines = (self.state / "env").read_text().splitlines()
        pairs = [line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")]
        return {name: value.strip("'") for name, value in pairs}

    def outbox(self) -> list[dict[str, Any]]:
        """What is whole of it: a fleet at work may be writing the last line."""
        path = self.state / "outbox.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


@contextlib.contextmanager
def killed_at_last(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def on_a_terminal(place: Place, *args: str) -> tuple[Ended, str]:
    """Runs with a terminal as stderr; what was shown on it is read as it comes, or the run would wait for us."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        # The kernel reports an error, not an end, once nobody holds the other side.
        with contextlib.suppress(OSError):
            while read := os.read(ours, 65536):
                shown.append(read)

    process = place.start(*args, environment={"TERM": "xterm", "COLUMNS": "200"}, stderr=theirs)
    os.close(theirs)
    reader = threading.Thread(target=watch)
    reader.start()
    with killed_at_last(process):
        out, _ = process.communicate(timeout=90)
    reader.join(timeout=10)
    os.close(ours)
    screen = b"".join(shown).decode()
    assert "Traceback" not in screen, screen
    return Ended(process.returncode, out, ""), screen


def working(pid: int, place: Place) -> list[psutil.Process]:
    """The family of a run that has had an effect."""
    family: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    # A broker, a worker with two children, beat, and Flower.
    return family if len(family) >= 6 and place.outbox() else []


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def leftovers(place: Place) -> list[psutil.Process]:
    """Processes that were started for this state directory, however they came to be orphans."""
    return [
        process for process in psutil.process_iter() if alive(process) and state_dir_of(process) == str(place.state)
    ]


def state_dir_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("ACP_STATE_DIR")
    except psutil.Error:
        return None
