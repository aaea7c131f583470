"""YAML as its author wrote it: plain values with the line of each, and every problem instead of the first.

Nothing is guessed and nothing is constructed: a duplicate key, an empty value, an alias, a tag or an odd number is a
problem, and a number with a fraction stays the exact text that was written (as a Decimal, never a float).
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Path: TypeAlias = tuple[str | int, ...]
Value: TypeAlias = str | int | bool | Decimal | list["Value"] | dict[str, "Value"] | None

_TAG: Final = "tag:yaml.org,2002:"
_COLLECTIONS: Final = frozenset({_TAG + "map", _TAG + "seq"})
_WHOLE: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,29})", re.ASCII)
_NOT_FINITE: Final = {".inf": "Infinity", "-.inf": "-Infinity", "+.inf": "Infinity", ".nan": "NaN"}
_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where; `line` counts from 1."""

    line: int
    path: Path
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, {dotted(self.path)}: {self.text}" if self.path else f"line {self.line}: {self.text}"


@dataclass(slots=True)
class Document:
    """One YAML document as plain values. `lines` has the line of every value, at its key where it has one."""

    value: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it that is there."""
        return self.lines[self.nearest(path)]

    def nearest(self, path: Path) -> Path:
        while path and path not in self.lines:
            path = path[:-1]
        return path


def read_document(text: str) -> Document:
    """Reads one document. What cannot be read at all has one problem and the value None."""
    document = Document(lines={(): 1})
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        if root is not None:
            document.value = _Reader(document).value(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = 1 if mark is None else mark.line + 1
        document.problems = [Problem(where, (), ", ".join(filter(None, (error.context, error.problem))))]
    except ReaderError as error:
        where = text.count("\n", 0, error.position) + 1
        document.problems = [Problem(where, (), "a character that YAML does not accept, write it as an escape")]
    except YAMLError as error:
        document.problems = [Problem(1, (), str(error))]
    except RecursionError:
        document.problems = [Problem(1, (), "it is nested too deeply")]
    return document


def dotted(path: Path) -> str:
    """A path as people write it: `rules[2].match.risk`."""
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return parts.removeprefix(".")


class _Reader:
    """Turns nodes into values and writes down lines and problems on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._seen: set[int] = set()

    def value(self, node: Node, path: Path) -> Value:
        self._document.lines.setdefault(path, _line(node))
        if id(node) in self._seen:
            self._problem(path, "aliases (*name) are not accepted, write it out")
            return None
        self._seen.add(id(node))
        if not isinstance(node, ScalarNode) and str(node.tag) not in _COLLECTIONS:
            self._problem(path, f"the tag {node.tag} is not accepted")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or str(key_node.tag) not in (_TAG + "str", _TAG + "merge"):
                self._problem(path, f"a key has to be text, quote it: {key!r:.60}", _line(key_node))
                continue
            self._readable(path, key, _line(key_node))
            inner = (*path, key)
            if key in mapping:
                first = self._document.lines[inner]
                self._problem(inner, f"this key is here twice, first on line {first}", _line(key_node))
                continue
            self._document.lines[inner] = _line(key_node)
            mapping[key] = self.value(value_node, inner)
        return mapping

    def _scalar(self, node: Node, path: Path) -> Value:
        text = str(node.value)
        kind = str(node.tag).removeprefix(_TAG)
        match kind:
            case "str" | "timestamp":
                return self._readable(path, text)
            case "int" if _WHOLE.fullmatch(text):
                return int(text)
            case "int":
                self._problem(path, f"write the number in plain decimal digits, or quote the text: {text:.60}")
            case "float":
                try:
                    return Decimal(_NOT_FINITE.get(text.lower(), text))
                except InvalidOperation:
                    self._problem(path, f"this is not a decimal number: {text:.60}")
            case "bool":
                return text.lower() == "true"
            case "null":
                self._problem(path, "it is empty: give it a value, or leave the key out")
            case _:
                self._problem(path, f"the tag {node.tag} is not accepted")
        return None

    def _readable(self, path: Path, text: str, line: int | None = None) -> str:
        found = _NOT_TEXT.search(text)
        if found:
            self._problem(path, f"the character U+{ord(found[0]):04X} is not accepted in text", line)
        return text

    def _problem(self, path: Path, text: str, line: int | None = None) -> None:
        """Without a line of its own it is at the path's: an empty value and an alias are marked elsewhere."""
        self._document.problems.append(Problem(line or self._document.lines[path], path, text))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
