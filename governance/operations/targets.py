"""Whether anything is known of what a kill switch was engaged for: a name that was mistyped stops nobody."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

from governance.core.switches import Scope, names_model
from governance.operations.context import Governance
from governance.store import action_reports, sessions

# How far back a name is looked for, and how many like it are offered.
_LATEST: Final = 10_000
_NEAR_MAX: Final = 3
_COLUMNS: Final = {
    Scope.STREAM: "stream",
    Scope.AGENT: "agent_id",
    Scope.USER: "user",
    Scope.TEAM: "team",
    Scope.ORG: "org",
    Scope.NAME: "name",
    Scope.MODEL: "model",
}


@dataclass(frozen=True, slots=True)
class UnknownTarget:
    """Nothing is known of this, which may be still to come; `near` are known ones that are written alike."""

    scope: Scope
    scope_id: str
    near: tuple[str, ...]


def unknown_target(gov: Governance, scope: Scope, scope_id: str, names: Sequence[str] = ()) -> UnknownTarget | None:
    """None when it is known: an action or a session by its id, anything else from the latest 10,000 actions.

    `names` are of actions that are known although none was asked for yet. Raises StoreUnavailable.
    """
    match scope:
        case Scope.SYSTEM:
            return None
        case Scope.ACTION:
            seen = [scope_id] if action_reports.whole(gov.store, scope_id) is not None else []
        case Scope.SESSION:
            known = sessions.find(gov.store, scope_id) is not None
            seen = [scope_id] if known else [session_id for session_id, _ in sessions.latest(gov.store, _LATEST)]
        case _:
            seen = action_reports.latest_values(gov.store, _COLUMNS[scope], _LATEST)
            if scope is Scope.STREAM:
                seen += [stream for _, stream in sessions.latest(gov.store, _LATEST)]
            if scope is Scope.NAME:
                seen += names
    if any(_is_meant(scope, scope_id, one) for one in seen):
        return None
    # The latest session comes first: a stream's name is meant as its present one.
    begun = [one for one in seen if one.startswith(scope_id)]
    near = begun or get_close_matches(scope_id, sorted(set(seen)))
    return UnknownTarget(scope, scope_id, tuple(near[:_NEAR_MAX]))


def _is_meant(scope: Scope, scope_id: str, one: str) -> bool:
    if scope is Scope.MODEL:
        return names_model(scope_id, one)
    return fnmatchcase(one, scope_id) if scope is Scope.NAME else one == scope_id
