"""A whole governed fleet on this machine: broker, database, model, workers, beat and Flower, as real processes.

The servers come first and are waited for. The rest starts at once and is looked after while work is already queued: a
queue needs no worker to be filled.
"""

import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kombu import Connection

from acp_tasks.control_queue import CONTROL
from acp_tasks.fleet.broker import BrokerServer, free_port
from acp_tasks.fleet.model import ModelServer
from acp_tasks.fleet.postgres import PostgresServer
from acp_tasks.fleet.process import Process, ProcessFailed, Stack
from acp_tasks.fleet.state_folder import write_environment
from governance.config import load_settings, sqlite_url
from governance.errors import BrokerUnavailable, InvalidOption
from governance.operations import database

_READY_S: Final = 60.0
_BROKER_S: Final = 5
_DATABASE: Final = "acp"
# Where actions wait: Celery's default queue.
AGENTS: Final = "celery"
# Two, so that recovery does not wait behind a webhook that does not answer.
_CONTROL_SLOTS: Final = 2
# Each server of its own runs in one process; a queue in memory has no other end.
_PRIVATE_BROKERS: Final = ("memory",)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started. `database` is sqlite, postgres or a URL; `broker_url` is None for one of our own, and
    `model_url` for the scripted model.

    `app` is what `celery -A` takes, `settings` is further environment.
    """

    state_dir: Path
    policy: Path | None = None
    database: str = "sqlite"
    broker_url: str | None = None
    model_url: str | None = None
    workers: int = 2
    concurrency: int = 2
    app: str = "acp_tasks"
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Member:
    """A program of the fleet, and how it shows that it is ready."""

    process: Process
    ready: Callable[[Process], bool]
    is_ready: bool = False


@dataclass(slots=True)
class Fleet:
    """What a Plan says, on a Stack that ends it. Start the servers, then the programs."""

    plan: Plan
    stack: Stack
    environment: dict[str, str] = field(default_factory=dict)
    flower_url: str | None = None
    _members: list[_Member] = field(default_factory=list)
    _started_s: float = 0.0

    @property
    def logs(self) -> Path:
        return self.plan.state_dir / "logs"

    @property
    def environment_file(self) -> Path:
        return self.plan.state_dir / "env"

    def start_servers(self) -> None:
        """Broker, model and database, migrated; afterwards `environment` leads to them, for us and for every child.

        Raises BrokerUnavailable, StoreUnavailable, SettingsInvalid, InvalidOption, StateDirUnusable.
        """
        environment = {
            "ACP_BROKER_URL": self._broker(),
            "ACP_DATABASE_URL": self._database(),
            "ACP_STATE_DIR": str(self.plan.state_dir),
            "ACP_MODEL_URL": self._model(),
            **self.plan.settings,
        }
        if self.plan.policy is not None:
            environment["ACP_POLICY"] = str(self.plan.policy)
        os.environ.update(environment)
        load_settings()
        database.upgrade_at(environment["ACP_DATABASE_URL"])
        write_environment(self.environment_file, environment)
        self.environment = environment

    def start_programs(self) -> None:
        """Workers, beat and Flower, none of them waited for."""
        together = self.stack.add(_Together())
        self._started_s = time.monotonic()
        for number in range(1, self.plan.workers + 1):
            self._start_worker(together, f"worker desk{number}", f"desk{number}", AGENTS, self.plan.concurrency)
        # Beat's jobs, recovery above all, must not wait until an agent has a slot free.
        self._start_worker(together, "control worker", "control", CONTROL, _CONTROL_SLOTS)
        schedule = self.plan.state_dir / "beat-schedule"
        self._start(together, "beat", ["beat", "-s", str(schedule), "-l", "INFO"], _says)
        if importlib.util.find_spec("flower") is not None:
            port = free_port()
            self.flower_url = f"http://127.0.0.1:{port}/"
            options = ["--address=127.0.0.1", f"--port={port}"]
            self._start(together, "flower", ["flower", *options], lambda _: _listens(port))

    def check(self) -> list[str]:
        """Names of the programs that are not ready yet, and of those that have ended since.

        Raises ProcessFailed for one that ended before it was ready, or is not in time, or when no worker is left.
        """
        late = time.monotonic() - self._started_s > _READY_S
        missing = []
        for member in self._members:
            process = member.process
            if not member.is_ready:
                member.is_ready = process.returncode is None and member.ready(process)
            if not member.is_ready and (late or process.returncode is not None):
                what = f"ended with {process.returncode} before" if process.returncode is not None else "is not"
                raise ProcessFailed(f"{process.name} {what} ready; {process.last_words()}")
            if not member.is_ready:
                missing.append(process.name)
        workers = [member.process for member in self._members if member.process.name.startswith("worker")]
        if all(worker.returncode is not None for worker in workers):
            raise ProcessFailed(f"no worker is left; {workers[0].last_words()}")
        return missing

    def ended(self) -> list[Process]:
        """Programs that ended by themselves."""
        return [member.process for member in self._members if member.process.returncode is not None]

    def _broker(self) -> str:
        url = self.plan.broker_url
        if url is None:
            server = self.stack.add(BrokerServer(self.plan.state_dir / "broker", durable=True))
            return server.start().url
        if urlsplit(url).scheme in _PRIVATE_BROKERS:
            raise InvalidOption("--broker", url, "a broker that other processes reach, such as redis://HOST:PORT/0")
        # Before anything is started, and by name: the workers would only say it in their logs.
        os.environ["ACP_BROKER_URL"] = url
        load_settings()
        try:
            with Connection(url, connect_timeout=_BROKER_S) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_BROKER_S)
        except Exception as problem:
            raise BrokerUnavailable(_without_password(url), str(problem)) from problem
        return url

    def _model(self) -> str:
        if self.plan.model_url is not None:
            return self.plan.model_url
        server = self.stack.add(ModelServer(self.logs / "model.log"))
        return server.start().url

    def _database(self) -> str:
        match self.plan.database:
            case "sqlite":
                return sqlite_url(self.plan.state_dir)
            case "postgres":
                server = self.stack.add(PostgresServer(self.plan.state_dir / "postgres"))
                return server.start().create_database(_DATABASE, exist_ok=True)
            case url:
                return url

    def _start_worker(self, together: "_Together", name: str, node: str, queue: str, slots: int) -> None:
        options = ["-n", f"{node}@%h", "-Q", queue, "-c", str(slots), "-l", "INFO"]
        # They would wait for each other's answers first, and have nothing to tell.
        self._start(together, name, ["worker", *options, "--without-mingle", "--without-gossip"], _says)

    def _start(self, together: "_Together", name: str, arguments: list[str], ready: Callable[[Process], bool]) -> None:
        environment = {**os.environ, **self.environment, "FLOWER_UNAUTHENTICATED_API": "false"}
        argv = [sys.executable, "-m", "celery", "-A", self.plan.app, *arguments]
        process = Process(name, argv, self.logs / f"{name.replace(' ', '-')}.log", environment)
        together.members.append(process)
        self._members.append(_Member(process, ready))


class _Together:
    """Programs that end at the same time: none of them needs another one to end."""

    def __init__(self) -> None:
        self.members: list[Process] = []

    def stop(self) -> None:
        if self.members:
            with ThreadPoolExecutor(len(self.members)) as pool:
                list(pool.map(Process.stop, self.members))

    def abort(self) -> None:
        for process in self.members:
            process.abort()


def _says(process: Process) -> bool:
    """Whether a worker or beat has said in its log that it works."""
    words = process.words()
    return " ready." in words or "beat: Starting" in words


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}").geturl()
