"""One line of the doctor."""

from dataclasses import dataclass
from enum import StrEnum

from governance.errors import GovernanceError


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do unless it is well."""

    name: str
    status: Status
    detail: str
    advice: str | None = None


def failed(name: str, problem: GovernanceError) -> Finding:
    """The error's own text says what to do, after its colon."""
    return Finding(name, Status.FAIL, str(problem))
