"""Decisions with a command_id: the changes and its claim are one transaction; a repeat has the same answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from governance.core.actions import State
from governance.core.changes import Change
from governance.core.digest import canonical_json, sha256
from governance.errors import CommandConflict, StateConflict
from governance.operations.context import Governance
from governance.store import commands
from governance.store.changes import apply_in


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision led to; `repeated` when the same command_id had decided it before.

    `state` parked: the approval counts and others are wanted. `grant_id`: the standing approval that was given with it.
    """

    action_id: str
    state: State
    repeated: bool = False
    grant_id: str | None = None


class TakenError(Exception):
    """Another caller took the command_id between our look and our claim."""


def fingerprint(*content: object) -> str:
    """What a command_id is bound to."""
    return sha256(canonical_json(list(content)))


def first_answer(gov: Governance, command_id: str | None, digest: str) -> Any | None:
    """What was kept as the answer to `command_id`. Raises CommandConflict when it was given for other content."""
    found = commands.find(gov.store, command_id) if command_id is not None else None
    if found is None:
        return None
    kind, known_digest, answer = found
    if known_digest != digest:
        raise CommandConflict(command_id, f"a call of kind {kind}")
    return json.loads(answer)


def earlier(gov: Governance, command_id: str | None, digest: str) -> list[Decided] | None:
    """The first decision by `command_id`. Raises CommandConflict when it was given for other content."""
    said = first_answer(gov, command_id, digest)
    if said is None:
        return None
    return [Decided(one["action_id"], State(one["state"]), True, one.get("grant_id")) for one in said]


def commanded(
    gov: Governance,
    changes: Sequence[Change],
    decided: Sequence[Decided],
    kind: str,
    command_id: str | None,
    digest: str,
    also: Callable[[Connection], None] = lambda _: None,
) -> list[Decided]:
    """Applies every change and claims the command_id, or none of it. Raises StateConflict when something moved."""
    answer = canonical_json([{"action_id": d.action_id, "state": d.state, "grant_id": d.grant_id} for d in decided])
    try:
        with gov.store.transaction() as connection:
            at_us = gov.clock.now_us()
            if command_id is not None and not commands.claim(connection, command_id, kind, digest, answer, at_us):
                raise TakenError
            for change in sorted(changes, key=lambda change: change.expected.id):
                if not apply_in(connection, change):
                    hint = "somebody decided at the same moment, and nothing was changed: look again"
                    raise StateConflict("action", change.expected.id, "moving", kind, hint)
            also(connection)
    except TakenError:
        first = earlier(gov, command_id, digest)
        assert first is not None
        return first
    return list(decided)
