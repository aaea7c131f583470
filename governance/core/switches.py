"""The kill switch: who is stopped, how hard, and which of several engaged switches an action meets.

A switch is engaged for one scope. `kill` cancels what waits and stops what runs; `pause` defers it until the release.
The narrowest scope is the one to use first; of the switches an action is in, a kill counts before a pause, and among
equals the narrowest is named.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class Scope(StrEnum):
    """Narrowest first."""

    ACTION = "action"
    SESSION = "session"
    STREAM = "stream"
    AGENT = "agent"
    USER = "user"
    TEAM = "team"
    ORG = "org"
    NAME = "name"
    MODEL = "model"
    SYSTEM = "system"


class Mode(StrEnum):
    KILL = "kill"
    PAUSE = "pause"


#: The scope id of the system.
EVERYTHING: Final = "*"
_NARROWEST: Final = {scope: rank for rank, scope in enumerate(Scope)}


def names_model(pattern: str, model: str) -> bool:
    """Whether a glob that forbids is about a model: in any case, for there are endpoints that know it in any."""
    return fnmatchcase(model.casefold(), pattern.casefold())


@dataclass(frozen=True, slots=True)
class Switch:
    """An engaged switch. The `scope_id` of the scopes name and model is a glob, of a model in any case; else exact."""

    id: str
    scope: Scope
    scope_id: str
    mode: Mode
    reason: str
    grace_us: int
    engaged_us: int

    @property
    def rule(self) -> str:
        """How a refusal names it."""
        return f"switch:{self.scope}" if self.scope is Scope.SYSTEM else f"switch:{self.scope}:{self.scope_id}"

    def covers(self, subject: "Subject") -> bool:
        match self.scope:
            case Scope.SYSTEM:
                return True
            case Scope.NAME:
                return fnmatchcase(subject.name, self.scope_id)
            case Scope.MODEL:
                return subject.model is not None and names_model(self.scope_id, subject.model)
            case Scope.SESSION:
                return self.scope_id in subject.sessions
            case _:
                return self.scope_id == subject.ids[self.scope]


@dataclass(frozen=True, slots=True)
class Subject:
    """What of an action a switch looks at. `sessions`: the one it was recorded in and the one it would run in."""

    action_id: str
    name: str
    model: str | None
    sessions: frozenset[str]
    stream: str
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None

    @property
    def ids(self) -> dict[Scope, str | None]:
        return {
            Scope.ACTION: self.action_id,
            Scope.STREAM: self.stream,
            Scope.AGENT: self.agent_id,
            Scope.USER: self.user,
            Scope.TEAM: self.team,
            Scope.ORG: self.org,
        }


def stopping(engaged: Iterable[Switch], subject: Subject) -> Switch | None:
    """The switch that counts for `subject`, None when it is in no scope."""
    covering = [switch for switch in engaged if switch.covers(subject)]
    return min(covering, key=lambda s: (s.mode is not Mode.KILL, _NARROWEST[s.scope], s.id), default=None)
