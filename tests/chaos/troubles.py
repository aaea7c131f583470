"""What goes wrong, each by its name: how it begins and how it is healed."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from governance.faults import POINTS
from tests.support.fleet import Shop, Worker

WORKERS: Final = ("one", "two")
BEATS: Final = ("beat1", "beat2")
_HOUR_S: Final = 3600
# Reached in a worker's processes; the other points are the producer's, the decider's and an agent's.
_ELSEWHERE: Final = ("after_submit", "after_decision", "after_agent")
_IN_WORKERS: Final = tuple(point for point in POINTS if not point.startswith(_ELSEWHERE))


class Fleet:
    """Two workers of two, two beats, a broker and a database, all of which may be ended at any time."""

    def __init__(self, shop: Shop, broker: BrokerServer, database: PostgresServer, seed: int) -> None:
        self.shop, self.broker, self.database = shop, broker, database
        self.random = random.Random(seed)
        self.workers: dict[str, Worker] = {}
        self.beats: dict[str, subprocess.Popen[bytes]] = {}
        self._armed = 0

    def start(self) -> None:
        for name in WORKERS:
            self.workers[name] = self.shop.worker(name, 2)
        for name in BEATS:
            self.beats[name] = self.shop.beat(name)
        for worker in self.workers.values():
            worker.ready()

    def pause(self) -> None:
        """Between two troubles; short enough that some meet what the last one left."""
        self._pause(0.5, 5)

    def heal(self) -> None:
        """Everything runs that should, and the clock is right."""
        for name in WORKERS:
            if self.workers[name].process.poll() is not None:
                self.workers[name] = self.shop.worker(name, 2)
        for name in BEATS:
            if self.beats[name].poll() is not None:
                self.beats[name] = self.shop.beat(name)
        self.shop.put_clock(0)

    # --- each trouble, from its beginning to its end ------------------------------------------------------------------

    def child_killed(self) -> None:
        children = _children(self._worker().process.pid)
        if children:
            _signal([self.random.choice(children)], signal.SIGKILL)

    def worker_killed(self) -> None:
        name = self.random.choice(WORKERS)
        self.workers[name].kill()
        self._pause(0, 4)
        self.workers[name] = self.shop.worker(name, 2)

    def worker_killed_at_a_point(self) -> None:
        """It is started again with a point armed, at which one of its processes dies when it comes there."""
        name = self.random.choice(WORKERS)
        self.workers[name].kill()
        self._armed += 1
        fault = f"{self.random.choice(_IN_WORKERS)}:{self.shop.folder / f'died-{self._armed}'}"
        self.workers[name] = self.shop.worker(name, 2, environment={"ACP_FAULT": fault})

    def worker_frozen(self) -> None:
        """Past its lease, or not; then it wakes up in the middle of what it did."""
        pid = self._worker().process.pid
        pids = [pid, *_children(pid)]
        _signal(pids, signal.SIGSTOP)
        self._pause(0.5, 8)
        _signal(pids, signal.SIGCONT)

    def worker_told_to_stop(self) -> None:
        name = self.random.choice(WORKERS)
        self.workers[name].process.terminate()
        try:
            self.workers[name].process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.workers[name].kill()
        self.workers[name] = self.shop.worker(name, 2)

    def beat_killed(self) -> None:
        name = self.random.choice(BEATS)
        self.beats[name].kill()
        self.beats[name].wait()
        self._pause(0, 4)
        self.beats[name] = self.shop.beat(name)

    def broker_killed_and_back_empty(self) -> None:
        self.broker.kill()
        self._pause(0, 4)
        self.broker.restart(empty=True)

    def broker_unreachable(self) -> None:
        self.broker.freeze()
        self._pause(1, 10)
        self.broker.thaw()

    def database_restarted(self) -> None:
        self.database.kill()
        self._pause(0, 3)
        self.database.restart()

    def database_away_and_disk_full(self) -> None:
        """Nothing can be written anywhere: a file stands where the spool's folder was."""
        spool = self.shop.folder / "state" / "spool"
        aside = Path(f"{spool}.aside")
        self.database.kill()
        spool.rename(aside)
        spool.touch()
        self._pause(1, 6)
        spool.unlink()
        aside.rename(spool)
        self.database.restart()

    def clock_put_forward_and_back(self) -> None:
        self.shop.put_clock(_HOUR_S)
        self._pause(2, 8)
        self.shop.put_clock(0)

    # ------------------------------------------------------------------------------------------------------------------

    def _worker(self) -> Worker:
        return self.workers[self.random.choice(WORKERS)]

    def _pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.random.uniform(least_s, most_s))


Trouble = Callable[[Fleet], None]
TROUBLES: Final[tuple[Trouble, ...]] = (
    Fleet.child_killed,
    Fleet.worker_killed,
    Fleet.worker_killed_at_a_point,
    Fleet.worker_frozen,
    Fleet.worker_told_to_stop,
    Fleet.beat_killed,
    Fleet.broker_killed_and_back_empty,
    Fleet.broker_unreachable,
    Fleet.database_restarted,
    Fleet.database_away_and_disk_full,
    Fleet.clock_put_forward_and_back,
)


def name_of(trouble: Trouble) -> str:
    return trouble.__name__.replace("_", " ")


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def _signal(pids: list[int], sign: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            continue
