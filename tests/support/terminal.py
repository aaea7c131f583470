"""The command line in processes of its own, as people and scripts run it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.governed import policy_file

ROOT = Path(__file__).parents[2]
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
    """Runs `acp` in a folder of its own."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "cli.db"

    def acp(self, *args: str, **env: str) -> Ran:
        return self.run(["-m", "acp_tasks.cli", *args], env)

    def celery(self, *args: str) -> Ran:
        return self.run(["-c", UNDER_CELERY, *args], {})

    def run(self, args: list[str], env: dict[str, str]) -> Ran:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACP_")}
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env={
                **inherited,
                "PYTHONPATH": str(ROOT),
                "ACP_DATABASE_URL": f"sqlite:///{self.database}",
                "ACP_STATE_DIR": str(self.folder / "state"),
                "ACP_BROKER_URL": NO_BROKER,
                "ACP_POLICY": str(policy_file(self.folder)),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)
