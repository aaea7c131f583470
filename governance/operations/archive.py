"""Sealed events in a file, one JSON object a line: what was pruned can still be read, and verified without the rest.

Each line carries the hash that its event was chained to, so that a file may begin anywhere in a session's history.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from governance.core.actions import State
from governance.core.audit import Anchor, chain_problems
from governance.core.events import GENESIS, StoredEvent
from governance.errors import InvalidOption
from governance.operations.audit import up_to
from governance.operations.context import Governance
from governance.store import events, retention

_FIELDS = {field.name for field in fields(StoredEvent)}


class Archive:
    """A new file to write sealed events to. Raises InvalidOption when it is there already or cannot be made."""

    def __init__(self, gov: Governance, path: Path) -> None:
        self._gov = gov
        try:
            self._file = path.open("x", encoding="utf-8")
        except OSError as problem:
            raise InvalidOption("export", path, f"a file that can be created ({problem.strerror})") from None

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, sealed: Iterator[StoredEvent], last_seq: int) -> None:
        """Writes the events of one session, in order, up to `last_seq`; they are on disk when this returns."""
        previous: str | None = None
        for event in up_to(last_seq, sealed):
            if previous is None:
                previous = self._before(event)
            self._file.write(json.dumps({**asdict(event), "previous": previous}, ensure_ascii=False) + "\n")
            previous = event.hash
        self._file.flush()
        os.fsync(self._file.fileno())

    def _before(self, event: StoredEvent) -> str:
        anchors = [] if event.seq == 1 else retention.anchors(self._gov.store, event.session_id)
        return anchors[-1].hash if anchors else GENESIS


@dataclass(frozen=True, slots=True)
class Archived:
    """What a file holds of one session, by the numbers of its first and last event, and the last one's hash."""

    session_id: str
    first_seq: int
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class FileVerification:
    """What was read in a file and what was wrong with it."""

    events: int
    sessions: tuple[Archived, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_file(gov: Governance, path: Path) -> FileVerification:
    """Checks the chains in an archive, and that this database's history ends or goes on where they end.

    Raises InvalidOption when it cannot be read as one.
    """
    problems: list[str] = []
    found: list[Archived] = []
    count = 0
    known = {(one.session_id, one.seq): one.hash for one in retention.anchors(gov.store)}
    for session_id, lines in groupby(_lines(path), key=lambda line: line[0].session_id):
        sealed = list(lines)
        first, previous = sealed[0]
        count += len(sealed)
        if first.seq == 1 and previous != GENESIS:
            problems.append(f"session {session_id}: its first event is chained to another one")
        before = Anchor(session_id, (first.seq or 1) - 1, previous, 0, 0, "", cleared=True)
        problems += chain_problems(session_id, (event for event, _ in sealed), before)
        last = sealed[-1][0]
        found.append(Archived(session_id, first.seq or 0, last.seq or 0, last.hash or ""))
        kept = events.replay(gov.store, session_id, (last.seq or 1) - 1, 1)
        if last.hash not in (known.get((session_id, last.seq or 0)), *(event.hash for event in kept)):
            problems.append(f"session {session_id}: this database does not know its last event, {last.seq}")
    return FileVerification(count, tuple(found), tuple(problems))


def _lines(path: Path) -> Iterator[tuple[StoredEvent, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield _parsed(path, number, line)
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidOption("file", path, f"an archive that can be read ({problem})") from None


def _parsed(path: Path, number: int, line: str) -> tuple[StoredEvent, str]:
    try:
        read: dict[str, Any] = json.loads(line)
        state = State(read["state"]) if read["state"] is not None else None
        event = StoredEvent(**{**{name: read[name] for name in _FIELDS}, "state": state})
        return event, str(read["previous"])
    except (ValueError, TypeError, KeyError):
        expected = f"what `acp audit prune --export` writes; line {number} is no event"
        raise InvalidOption("file", path, expected) from None
