"""The token that is kept in a state directory, for the eyes of its owner only."""

import os
import stat
from pathlib import Path
from typing import Final

from governance.errors import NotAuthenticated, StateDirUnusable

_FILE: Final = "token"


def kept_token(state_dir: Path) -> str | None:
    """The token in the state directory. Raises NotAuthenticated when others can read or write it."""
    path = state_dir / _FILE
    try:
        with path.open() as file:
            shared = os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            if shared:
                raise NotAuthenticated(f"{path} is open to others: chmod 600 it, and have its token revoked")
            return file.read().strip() or None
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise NotAuthenticated(f"{path} cannot be read: {problem.strerror or problem}") from None


def keep_token(state_dir: Path, text: str) -> None:
    """Puts a token into the state directory, for its owner's eyes only. Raises StateDirUnusable."""
    path = state_dir / _FILE
    aside = path.with_suffix(".tmp")
    try:
        aside.unlink(missing_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        aside.replace(path)
    except OSError as problem:
        raise StateDirUnusable(str(state_dir), problem.strerror or str(problem)) from problem
