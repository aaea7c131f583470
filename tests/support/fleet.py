"""Real worker processes of the shop, their database and their broker, for the tests that need them."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from acp_tasks import bootstrap
from acp_tasks.heart import stop_heart
from acp_tasks.publish import deliver
from governance.operations import decide
from governance.operations.context import Governance
from governance.store import migrate
from governance.store.engine import Store
from tests.support.governed import ANN, policy_file
from tests.support.intact import unsettled, violations

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def eventually(look: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
    """Looks until it sees something true, for as long as `deadline_s`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


class Shop:
    """A fleet of somebody's own project. Processes are ended by their own pid, at the latest by `close`."""

    def __init__(self, folder: Path, database_url: str, broker_url: str, **settings: str) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "ACP_DATABASE_URL": database_url,
            "ACP_BROKER_URL": broker_url,
            "ACP_STATE_DIR": str(folder / "state"),
            "ACP_POLICY": str(policy_file(folder)),
            "SHOP_FOLDER": str(folder),
            "SHOP_CLOCK": str(folder / "clock"),
            "PYTHONPATH": str(ROOT),
            "C_FORCE_ROOT": "1",
            **settings,
        }
        self.patch = pytest.MonkeyPatch()
        for name, value in self.environment.items():
            self.patch.setenv(name, value)
        bootstrap.parts.cache_clear()
        store = Store(database_url)
        migrate.upgrade(store)
        store.close()
        self.tasks = self._import()
        self.lasting = importlib.import_module("tests.support.lasting")

    @property
    def gov(self) -> Governance:
        return bootstrap.governance()

    def worker(
        self,
        name: str = "w",
        concurrency: int = 2,
        environment: Mapping[str, str] | None = None,
        pool: str = "prefork",
        queues: str | None = None,
    ) -> "Worker":
        argv = ["worker", "-n", f"{name}@shop", "-c", str(concurrency), "-P", pool, "-l", "INFO", "--without-gossip"]
        argv += ["-Q", queues] if queues else []
        return Worker(self, name, self._start(name, argv, environment or {}))

    def beat(self, name: str = "beat") -> subprocess.Popen[bytes]:
        """Each remembers in a file of its own what it sent, like on machines of their own."""
        return self._start(name, ["beat", "-l", "INFO", "-s", str(self.folder / f"schedule-{name}")], {})

    def monitor(self, port: int, user: str) -> subprocess.Popen[bytes]:
        """Flower on a loopback port, for `user` (name:password) only."""
        return self._start("flower", ["flower", "--address=127.0.0.1", f"--port={port}", f"--basic-auth={user}"], {})

    def put_clock(self, offset_s: int) -> None:
        """Governance's clock in every process of the shop, this one too: from now on that much ahead."""
        aside = self.folder / "clock.new"
        aside.write_text(str(offset_s))
        aside.rename(self.folder / "clock")

    def approve(self, action_id: str) -> None:
        decide.approve(self.gov, action_id, by=ANN, reason="fine")
        deliver(self.tasks.app, self.gov, action_id)

    def deny(self, action_id: str, reason: str = "no") -> None:
        decide.deny(self.gov, action_id, by=ANN, reason=reason)
        deliver(self.tasks.app, self.gov, action_id)

    def state(self, action_id: str) -> str | None:
        found = self.gov.store.read("SELECT state FROM actions WHERE id = :id", {"id": action_id})
        return str(found[0][0]) if found else None

    def until(self, action_id: str, state: str, deadline_s: float = 30.0) -> None:
        eventually(lambda: self.state(action_id) == state, f"action {action_id} {state}", deadline_s)

    def effects(self) -> list[str]:
        path = self.folder / "effects.txt"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        stop_heart()
        self.gov.store.close()
        bootstrap.parts.cache_clear()
        self.patch.undo()

    def _import(self) -> ModuleType:
        """The shop as its own producer imports it: once for a process, whatever the database."""
        shop = importlib.import_module("tests.support.shop")
        assert shop.app.conf.broker_url == self.environment["ACP_BROKER_URL"]
        with shop.app.connection_for_write() as connection:
            connection.default_channel.client.flushdb()
        return shop

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.support.shop", *arguments],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process


class Worker:
    """One worker process and its pool children."""

    def __init__(self, shop: Shop, name: str, process: subprocess.Popen[bytes]) -> None:
        self.shop, self.name, self.process = shop, name, process

    @property
    def is_ready(self) -> bool:
        return f"{self.name}@shop ready" in self.shop.log(self.name)

    def ready(self) -> "Worker":
        def look() -> bool:
            assert self.process.poll() is None, self.shop.log(self.name)
            return self.is_ready

        # One that does not come up is noticed by its end; one that is slow has many beside it.
        eventually(look, f"worker {self.name} ready", 90)
        return self

    def kill(self) -> None:
        """SIGKILL; Celery's pool children follow their parent."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        # A child whose last result nobody read any more waits 30 s for that before it ends: billiard's pool does.
        return self.process.wait(timeout=60)


def settled(shop: Shop) -> bool:
    """Every action has ended and was told, or waits for a person."""
    return not unsettled(shop.gov)


def settle(shop: Shop, deadline_s: float = 60.0) -> None:
    """Waits until everything has ended or waits for a person; says what has not."""
    try:
        eventually(lambda: settled(shop), "everything settled", deadline_s)
    except AssertionError as problem:
        raise AssertionError(f"{problem}; at {shop.gov.clock.now_us()}: {unsettled(shop.gov)}") from None


def assert_intact(shop: Shop) -> None:
    """Nothing lost, stuck, doubled or out of balance."""
    found = violations(shop.gov, shop.folder, shop.effects())
    assert not found, found


def failure(result: Any, timeout_s: float = 20.0) -> BaseException:
    """What a result failed with."""
    with pytest.raises(Exception) as caught:
        result.get(timeout=timeout_s)
    return caught.value
