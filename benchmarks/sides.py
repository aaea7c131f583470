"""One app with its worker processes and its producing process, ready to run rounds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from acp_tasks.app import celery_settings
from acp_tasks.fleet.process import Process
from benchmarks.servers import POLICY, ROOT
from governance.config import Settings


class Side:
    """Starts `workers` workers of `benchmarks.<module>`; ends every process by its own pid.

    Each has so many pool children, and each action waits for `body_s` seconds.
    """

    def __init__(
        self,
        name: str,
        module: str,
        folder: Path,
        *,
        broker_url: str,
        number: int,
        database_url: str,
        workers: int,
        children: int = 1,
        body_s: float = 0.0,
    ) -> None:
        self.name = name
        self.workers = workers
        self.folder = folder / f"side-{name}"
        self.folder.mkdir()
        self._environment = environment_of(self.folder, broker_url, number, database_url)
        self._environment["BENCHMARK_BODY_S"] = f"{body_s:g}"
        self._processes = [self._worker(module, number, children) for number in range(workers)]
        with (self.folder / "producer.log").open("ab") as log:
            self._producer = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.producer", f"benchmarks.{module}"],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> "Side":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def warm(self, actions: int) -> None:
        """Waits for the workers and runs a few actions, so that no round pays for imports and first connections."""
        self._ask(f"ready {self.workers}")
        self._ask(f"run {actions}")

    def round(self, actions: int) -> float:
        """Actions per second, from the first publication to the last result."""
        return float(actions / self._ask(f"run {actions}")["seconds"])

    def stop(self) -> None:
        self._producer.kill()
        self._producer.communicate()
        for process in self._processes:
            process.stop()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._producer.stdin is not None
        assert self._producer.stdout is not None
        self._producer.stdin.write(line + "\n")
        self._producer.stdin.flush()
        text = self._producer.stdout.readline()
        answer: dict[str, Any] = json.loads(text) if text else {"ok": False, "problem": "the producer ended"}
        if not answer["ok"]:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
            raise RuntimeError(f"{self.name}: {line}: {answer['problem']}\n{logs}")
        return answer

    def _worker(self, module: str, number: int, children: int) -> Process:
        argv = [sys.executable, "-m", "celery", "-A", f"benchmarks.{module}:app", "worker", "-l", "WARNING"]
        argv += ["-c", str(children), "-n", f"w{number}@{self.name}", "--without-gossip", "--without-mingle"]
        # Process starts its program in the current folder; everything it needs is named by the environment.
        return Process(f"{self.name} worker", argv, self.folder / f"worker-{number}.log", self._environment)


def environment_of(folder: Path, broker_url: str, number: int, database_url: str) -> dict[str, str]:
    """The same Celery settings for every side; each has two databases of the broker to itself: messages, results."""
    server = broker_url.rsplit("/", 1)[0]
    settings = Settings(
        broker_url=f"{server}/{2 * number}", result_backend=f"{server}/{2 * number + 1}", database_url=database_url
    )
    return {
        **os.environ,
        "BENCHMARK_CELERY": json.dumps(celery_settings(settings)),
        "ACP_DATABASE_URL": database_url,
        "ACP_BROKER_URL": settings.broker_url,
        "ACP_STATE_DIR": str(folder),
        "ACP_POLICY": str(POLICY),
        "PYTHONPATH": str(ROOT),
        "C_FORCE_ROOT": "1",
    }
