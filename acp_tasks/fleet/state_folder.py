"""The folder in which a local fleet keeps everything: data, logs, outbox. One run at a time works in it."""

import contextlib
import fcntl
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from governance.errors import StateConflict, StateDirUnusable


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """Makes the folder and keeps it for this process. The lock ends with the process, however it ends.

    Raises StateDirUnusable, and StateConflict when another run works in it.
    """
    folder = path.absolute()
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as problem:
        raise StateDirUnusable(str(path), problem.strerror or str(problem)) from problem
    try:
        _lock(lock, folder)
        yield folder
    finally:
        os.close(lock)


def write_environment(path: Path, environment: Mapping[str, str]) -> None:
    """A file for a shell to read, so that other commands meet the same database and broker; URLs may hold passwords."""
    lines = ["# What `acp` needs to know about this fleet: read it into a shell with a dot in front."]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    aside = path.with_suffix(".tmp")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        aside.replace(path)
    except OSError as problem:
        raise StateDirUnusable(str(path.parent), problem.strerror or str(problem)) from problem


def _lock(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        raise StateConflict(
            "the state directory",
            folder,
            f"in use by another run (pid {holder})",
            "used by this one",
            "wait until that one ends, or pass another --state-dir",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
