"""What a running attempt may do besides ending: write to the trail, and ask whether it still owns its action."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from governance.core.changes import ActionRef, Author, event_of
from governance.core.digest import canonical_json
from governance.core.switches import Mode, Switch, stopping
from governance.errors import AttemptFenced, InvalidOption, StoreUnavailable
from governance.operations.context import Governance
from governance.operations.switches import board_at, subject_of
from governance.store import actions, events
from governance.store.action_rows import ActionRow

PAYLOAD_BYTES_MAX: Final = 64 * 1024
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,99}")


def names_of(gov: Governance, action_id: str) -> dict[str, str]:
    """What log lines name an action by: as much of it as the store is there to say."""
    try:
        action = actions.find(gov.store, action_id)
    except StoreUnavailable:
        action = None
    if action is None:
        return {"action": action_id}
    return {
        "action": action_id,
        "session": action.ref.session_id,
        "command_id": action.command_id,
        "correlation_id": action.correlation_id,
    }


def emit(gov: Governance, ref: ActionRef, kind: str, payload: Mapping[str, object], actor: str) -> None:
    """Writes `agent.<kind>` to the session's trail.

    Raises InvalidOption for a kind or payload that cannot be kept, AttemptFenced when the attempt lost its action.
    """
    if not _KIND.fullmatch(kind):
        raise InvalidOption("kind", kind, "lower-case letters, digits, dots, dashes; 1 to 100 characters")
    try:
        size = len(canonical_json(payload).encode())
    except (TypeError, ValueError) as problem:
        raise InvalidOption("payload", kind, f"JSON ({problem})") from None
    if size > PAYLOAD_BYTES_MAX:
        raise InvalidOption("payload", f"{size} bytes", f"at most {PAYLOAD_BYTES_MAX} bytes of JSON")
    event = event_of(f"agent.{kind}", ref, Author(actor, gov.clock.now_us()), None, payload)
    if not events.append_owned(gov.store, event):
        raise AttemptFenced(ref.id, ref.attempt)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an attempt still runs its action, and the kill switch that covers it."""

    owned: bool
    switch: Switch | None


def standing(gov: Governance, ref: ActionRef, action: ActionRow) -> Standing:
    """As far as the store knows, in one round trip unless a switch has changed. Raises StoreUnavailable."""
    owned, epoch = actions.standing(gov.store, ref.id, ref.attempt)
    switch = stopping(board_at(gov, epoch).engaged, subject_of(action, ref.session_id))
    return Standing(owned, switch if switch is not None and switch.mode is Mode.KILL else None)
