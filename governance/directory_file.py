"""The file of the directory: what people write, checked as a whole, or refused with every problem.

version: 1
orgs: [acme, globex]
teams: {support: acme, billing: acme}
users: {u1: support, u2: billing}
"""

from pathlib import Path
from typing import Final

from governance.core.directory import Directory
from governance.errors import DirectoryInvalid
from governance.yaml_document import Document, Problem, Value, read_document

TEXT_BYTES_MAX: Final = 16 * 1024 * 1024
_KEYS: Final = ("version", "orgs", "teams", "users")
_NAME_LENGTH_MAX: Final = 200
_NAME: Final = f"a printable name of 1 to {_NAME_LENGTH_MAX} characters without spaces around it"


def read_directory(path: Path | str) -> Directory:
    """The directory in the file at `path`. Raises DirectoryInvalid."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(TEXT_BYTES_MAX + 1)
        text = raw.decode("utf-8-sig")
    except OSError as problem:
        raise DirectoryInvalid(str(path), [f"the file cannot be read: {problem.strerror or problem}"]) from None
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise DirectoryInvalid(str(path), [f"line {line}: byte {problem.start} is not UTF-8 text"]) from None
    if len(raw) > TEXT_BYTES_MAX:
        raise DirectoryInvalid(str(path), [f"the file is larger than {TEXT_BYTES_MAX} bytes"])
    return parse_directory(text, str(path))


def parse_directory(text: str, path: str = "<directory>") -> Directory:
    """The directory in `text`, which messages call `path`. Raises DirectoryInvalid with every problem."""
    document = read_document(text)
    content = document.value
    if not isinstance(content, dict):
        if not document.problems:
            found = "empty" if content is None else "not a mapping"
            document.problems = [Problem(1, (), f"it is {found}: expected a mapping with {', '.join(_KEYS)}")]
        raise DirectoryInvalid(path, [str(problem) for problem in document.problems])
    _keys(document, content)
    orgs = _orgs(document, content.get("orgs", []))
    teams = _belonging(document, content.get("teams", {}), "teams", "org", set(orgs))
    users = _belonging(document, content.get("users", {}), "users", "team", set(teams))
    if document.problems:
        ordered = sorted(document.problems, key=lambda problem: problem.line)
        raise DirectoryInvalid(path, [str(problem) for problem in ordered])
    return Directory(tuple(orgs), teams, users)


def _keys(document: Document, content: dict[str, Value]) -> None:
    for key in content:
        if key not in _KEYS:
            _problem(document, (key,), f"unknown key, expected one of {', '.join(_KEYS)}")
    if "version" not in content:
        _problem(document, (), f"the key version is missing: expected a mapping with {', '.join(_KEYS)}")
    elif type(content["version"]) is not int or content["version"] != 1:
        _problem(document, ("version",), "expected 1, the version of the format that this release reads")


def _orgs(document: Document, given: Value) -> list[str]:
    if not isinstance(given, list):
        _problem(document, ("orgs",), "expected a list of names")
        return []
    orgs: list[str] = []
    for index, name in enumerate(given):
        if not _is_name(name):
            _problem(document, ("orgs", index), f"expected {_NAME}")
        elif name in orgs:
            _problem(document, ("orgs", index), f"the org {name} is here twice")
        else:
            orgs.append(str(name))
    return orgs


def _belonging(document: Document, given: Value, key: str, above: str, known: set[str]) -> dict[str, str]:
    """Names, each with what it belongs to."""
    if not isinstance(given, dict):
        _problem(document, (key,), f"expected a mapping, NAME: {above.upper()}")
        return {}
    belonging: dict[str, str] = {}
    for name, to in given.items():
        if not _is_name(name):
            _problem(document, (key, name), f"expected {_NAME}")
        if to is None:
            # Already told: the value is empty, or no text at all.
            continue
        if not isinstance(to, str) or to not in known:
            _problem(document, (key, name), f"the {above} {to!s:.60} is not among the file's {above}s")
        else:
            belonging[name] = to
    return belonging


def _is_name(value: object) -> bool:
    return (
        isinstance(value, str) and 0 < len(value) <= _NAME_LENGTH_MAX and value.isprintable() and value.strip() == value
    )


def _problem(document: Document, path: tuple[str | int, ...], text: str) -> None:
    if all(problem.path != path for problem in document.problems):
        document.problems.append(Problem(document.line_of(path), path, text))
