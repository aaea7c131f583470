"""Checkpoints: what a restore point holds, and how two of them differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from governance.core.digest import canonical_json, sha256


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A restore point of a stream. `control` and `state` are canonical JSON; `event_id` is the trail's position."""

    id: str
    stream: str
    session_id: str
    made_us: int
    made_by: str
    action_id: str | None
    cycle: int | None
    event_id: int
    control: str
    state: str | None

    @property
    def digest(self) -> str:
        """Whoever restores it can tell that it is what was saved."""
        return sha256(canonical_json([self.event_id, self.cycle, self.control, self.state]))


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two documents differ; None where it is missing."""

    path: str
    before: Any
    after: Any


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """Every place in which two JSON documents differ, mappings by key and lists by position, in the order of paths."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            old = before[number] if number < len(before) else None
            new = after[number] if number < len(after) else None
            yield from differences(old, new, f"{path}[{number}]")
    elif before != after or type(before) is not type(after):
        yield Difference(path, before, after)
