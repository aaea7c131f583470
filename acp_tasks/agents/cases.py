"""Cases of a support desk: read from JSON Lines one at a time, checked, and turned into the action each asks for.

A file may be larger than memory and may come from another program, so a line that is no case is a value, not an
exception: whoever reads decides whether to skip it or to stop.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError, model_validator

from governance.core.digest import canonical_json, sha256
from governance.core.money import MICROS_PER_USD, cost_micros
from governance.errors import CasesInvalid, InvalidAmount

LINE_BYTES_MAX: Final = 1024 * 1024
#: What the desk's agent thinks with, unless another one is named: the local fleet's own.
MODEL: Final = "scripted-small"
_SHOWN_MAX: Final = 80


class Priority(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def _amount(value: object) -> str:
    """An amount as exact text, the same for every way to write it: it is part of what makes two cases the same."""
    try:
        micros = cost_micros(value, "amount_usd")
    except InvalidAmount as problem:
        raise ValueError(str(problem)) from None
    if not micros:
        raise ValueError("expected more than 0 USD")
    whole, fraction = divmod(micros, MICROS_PER_USD)
    return f"{whole}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"


def _printable(value: object) -> object:
    if isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise ValueError("expected printable characters, and not only spaces")
    return value


# Names become parts of ids, of resources and of log lines.
_Name = Annotated[str, StringConstraints(max_length=100), BeforeValidator(_printable)]


class Case(BaseModel):
    """One case as its line says it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    case_id: _Name
    priority: Priority
    subject: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    body: str
    amount_usd: Annotated[str, BeforeValidator(_amount)] | None = None
    user: _Name | None = None
    team: _Name | None = None
    org: _Name | None = None

    @model_validator(mode="after")
    def _refunds_say_how_much(self) -> Self:
        if self.priority is Priority.HIGH and self.amount_usd is None:
            raise ValueError("a case of priority high needs amount_usd")
        return self

    @property
    def identity(self) -> dict[str, str]:
        named = {"user": self.user, "team": self.team, "org": self.org}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Read:
    """A line that is a case."""

    line: int
    case: Case


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is none, and what was expected."""

    line: int
    problem: str


Line: TypeAlias = Read | BadLine


@dataclass(frozen=True, slots=True)
class Request:
    """The action a case asks for. The command_id names case and effect: a case is answered, or refunded, once."""

    action: str
    arguments: dict[str, str]
    command_id: str


def request_of(case: Case) -> Request:
    """Without a model, by priority: routine cases are answered, costly ones refunded; for critical ones nobody may."""
    arguments = {"case_id": case.case_id}
    match case.priority:
        case Priority.LOW | Priority.MEDIUM:
            action = "case.reply"
            about = f"Thank you for writing about {case.subject!r}."
            arguments["text"] = f"{about} We have looked at your case {case.case_id} and taken care of it."
        case Priority.HIGH:
            action = "case.refund"
            arguments["amount_usd"] = case.amount_usd or ""
        case Priority.CRITICAL:
            action = "account.close"
    return Request(action, arguments, f"case:{case.case_id}:{action}")


def run_of(case: Case, model: str) -> Request:
    """With a model: the desk's agent reads the case, and asks for what it thinks right."""
    arguments = case.model_dump(mode="json", exclude_none=True, exclude={"user", "team", "org"})
    return Request("desk.answer", {**arguments, "model": model}, f"case:{case.case_id}:agent")


def read_cases(path: Path) -> Iterator[Line]:
    """Every line of `path` that is not empty. A case_id that comes again with other content is a bad line.

    Raises CasesInvalid when the file is not there or cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(file)
    except OSError as problem:
        raise CasesInvalid(str(path), problem.strerror or str(problem)) from problem


def _lines(file: BinaryIO) -> Iterator[Line]:
    seen: dict[str, tuple[int, str]] = {}
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(raw) > LINE_BYTES_MAX:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LINE_BYTES_MAX)
            yield BadLine(number, f"longer than {LINE_BYTES_MAX} bytes: expected one case, one JSON object, a line")
        elif raw.strip():
            line = _line(number, raw)
            yield _once(line, seen) if isinstance(line, Read) else line


def _line(number: int, raw: bytes) -> Line:
    try:
        # Some programs begin a UTF-8 file with a byte order mark.
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        content = json.loads(text, object_pairs_hook=_without_repeats)
        if not isinstance(content, dict):
            raise ValueError(f"expected a JSON object such as {_EXAMPLE}")
        return Read(number, Case.model_validate_json(json.dumps(content, ensure_ascii=False).encode()))
    except ValidationError as problem:
        return BadLine(number, "; ".join(_said(error) for error in problem.errors()))
    except UnicodeDecodeError as problem:
        return BadLine(number, f"not UTF-8 at byte {problem.start + 1}: expected UTF-8 text")
    except UnicodeEncodeError:
        return BadLine(number, "half of a surrogate pair is no character: expected whole ones")
    except json.JSONDecodeError as problem:
        return BadLine(number, f"not JSON at column {problem.colno} ({problem.msg}): expected {_EXAMPLE}")
    except RecursionError:
        return BadLine(number, f"nested too deeply: expected {_EXAMPLE}")
    except ValueError as problem:
        return BadLine(number, str(problem))


def _once(read: Read, seen: dict[str, tuple[int, str]]) -> Line:
    digest = sha256(canonical_json(read.case.model_dump(mode="json")))
    first, known = seen.setdefault(read.case.case_id, (read.line, digest))
    if known != digest:
        return BadLine(
            read.line,
            f"case_id {read.case.case_id!r} is on line {first} with other content: expected a case_id of its own",
        )
    return read


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {_shown(twice)} is there twice: expected every key once")
    return found


def _said(error: Any) -> str:
    """One problem of a case: where, what was there, what was expected."""
    place = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"unknown key {_shown(place)}: expected {', '.join(Case.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}={_shown(error['input'])}: {message}" if place else str(message)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


_EXAMPLE: Final = '{"case_id": "c1", "priority": "low", "subject": "...", "body": "..."}'
