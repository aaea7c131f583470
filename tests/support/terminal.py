"""The command line in processes of its own, as people and scripts run it."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.forks import FORKS
from tests.support.governed import POLICY, policy_file

ROOT = Path(__file__).parents[2]
DEADLINE_S: Final = 60
NO_BROKER = "redis://:hush@127.0.0.1:1/0"
UNDER_CELERY = """
import sys
from celery.bin.celery import celery, main
from acp_tasks.cli import acp
celery.add_command(acp, "acp")
sys.exit(main())
"""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Terminal:
    """Runs `acp` in a folder of its own; as `root`, once that is enrolled, unless it is told who else types."""

    folder: Path
    policy: str = POLICY
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.folder / "cli.db"

    def enroll(self, name: str, *roles: str, **env: str) -> None:
        """Has `root`, or nobody if it is the first, make a token for `name`, which then types with `by=name`."""
        options = [word for role in roles for word in ("--role", role)]
        made = self.acp("tokens", "create", name, *options, "--json", **env)
        assert made.code == 0, made.err
        self.tokens[name] = made.json["token"]

    def acp(self, *args: str, by: str = "root", **env: str) -> Ran:
        return self.module("acp_tasks.cli", *args, by=by, **env)

    def module(self, name: str, *args: str, by: str = "root", **env: str) -> Ran:
        """`python -m name`."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            fork = FORKS.Process(target=_run, args=(name, args, self.folder, self._environment(by, env), out, err))
            fork.start()
            fork.join(DEADLINE_S)
            if fork.exitcode is None:
                fork.kill()
                fork.join()
                raise AssertionError(f"{name} {args} took over {DEADLINE_S} s: {err.read_text()}")
            return _checked(fork.exitcode, out.read_text(), err.read_text())

    def celery(self, *args: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-c", UNDER_CELERY, *args],
            cwd=self.folder,
            env=self._environment("root", {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        return _checked(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str, stdout: int = subprocess.PIPE, **env: str) -> "subprocess.Popen[str]":
        """A command that goes on until it is interrupted; whoever starts it ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "acp_tasks.cli", *args],
            cwd=self.folder,
            env=self._environment("root", env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            # What a shell starts in the background ignores the key, and so would whatever it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def _environment(self, by: str, env: dict[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACP_")}
        token = {"ACP_TOKEN": self.tokens[by]} if by in self.tokens else {}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "ACP_DATABASE_URL": f"sqlite:///{self.database}",
            "ACP_STATE_DIR": str(self.folder / "state"),
            "ACP_BROKER_URL": NO_BROKER,
            "ACP_POLICY": str(policy_file(self.folder, self.policy)),
            **token,
            **env,
        }


def _checked(code: int, out: str, err: str) -> Ran:
    assert "Traceback" not in err, err
    return Ran(code, out, err)


def _run(name: str, args: tuple[str, ...], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """`python -m name`, in the process that was forked for it."""
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = args
    runpy.run_module(name, run_name="__main__", alter_sys=True)
