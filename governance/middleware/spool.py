"""What could not be written while the store was away, on local disk until it can.

One file for each note, written aside, synced and renamed, so that a note is whole or not there. Every note names the
attempt it belongs to, and the store's guards make applying it twice the same as once.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from governance.core.actions import Lease, State
from governance.core.changes import ActionRef
from governance.core.ledger import Hold, Unit, Usage
from governance.errors import StateDirUnusable, StoreUnavailable
from governance.operations.context import Governance
from governance.operations.finish import (
    AskedToRetry,
    Finish,
    Outcome,
    Raised,
    Stopped,
    Succeeded,
    Suspended,
    finish,
    give_back,
)

log = structlog.get_logger(__name__)

_OUTCOMES: dict[str, type[Outcome]] = {
    kind.__name__: kind for kind in (Succeeded, Raised, AskedToRetry, Stopped, Suspended)
}


class Spool:
    """A folder of notes. Raises StateDirUnusable when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StateDirUnusable(str(folder), problem.strerror or str(problem)) from problem
        if not os.access(folder, os.W_OK):
            raise StateDirUnusable(str(folder), "no write permission")

    def keep(self, ending: Finish) -> None:
        """Keeps an attempt's end."""
        self._write(
            f"{ending.ref.id}-{ending.ref.attempt}",
            {"finish": _kept(ending), "outcome": type(ending.outcome).__name__},
        )

    def give_back(self, action_id: str, lease: Lease, started_us: int) -> None:
        """Keeps that the admission written by `lease` at `started_us` may have been committed and did not run."""
        self._write(
            f"{action_id}-{started_us}-given-back",
            {"action_id": action_id, "lease": asdict(lease), "started_us": started_us},
        )

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("*.json"))

    def drain(self, gov: Governance) -> int:
        """Applies every note and removes it; returns how many. Raises StoreUnavailable while the store is away."""
        drained = 0
        for path in sorted(self.folder.glob("*.json")):
            try:
                self._apply(gov, json.loads(path.read_text()))
            except FileNotFoundError:
                # Another worker of this machine was faster.
                continue
            except StoreUnavailable:
                raise
            except Exception as problem:
                # One note that makes no sense must not keep the others waiting; a person finds it by its name.
                log.error("spooled note set aside", path=str(path), problem=repr(problem))
                path.replace(path.with_suffix(".bad"))
                continue
            path.unlink(missing_ok=True)
            drained += 1
        return drained

    def _apply(self, gov: Governance, note: dict[str, Any]) -> None:
        if "finish" in note:
            result = finish(gov, _finish(note["finish"], _OUTCOMES[note["outcome"]]))
            log.info("spooled finish applied", action=note["finish"]["ref"]["id"], result=type(result).__name__)
            return
        lease = Lease(**note["lease"])
        if give_back(gov, note["action_id"], lease, note["started_us"]):
            log.info("admission given back", action=note["action_id"])

    def _write(self, name: str, note: dict[str, Any]) -> None:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        aside = self.folder / f"{safe}.{os.getpid()}.tmp"
        try:
            with aside.open("w") as file:
                json.dump(note, file)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.folder / f"{safe}.json")
        except BaseException:
            # Half a note only takes the room that the next try needs.
            aside.unlink(missing_ok=True)
            raise


def _kept(ending: Finish) -> dict[str, Any]:
    kept = asdict(ending)
    for hold in kept["holds"]:
        # Only top-ups make parts of it, and then the store is asked.
        del hold["parts"]
    return kept


def _finish(kept: dict[str, Any], outcome: type[Outcome]) -> Finish:
    ref, used = kept["ref"], kept["usage"]
    return Finish(
        ref=ActionRef(ref["id"], ref["session_id"], State(ref["state"]), ref["attempt"]),
        holds=tuple(Hold(**{**hold, "unit": Unit(hold["unit"])}) for hold in kept["holds"]),
        outcome=outcome(**kept["outcome"]),
        usage=Usage(used["cost_micros"], used["tokens"], tuple(Unit(unit) for unit in used.get("unknown", ()))),
        actor=kept["actor"],
        at_us=kept["at_us"],
        topped_up=kept.get("topped_up", False),
    )
