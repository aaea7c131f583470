"""Arguments that the scripted model makes up: by the facts of a message where it has them, else by the schema."""

import json
import random
import re
from collections.abc import Mapping
from typing import Any, Final

#: How it begins what it says.
OPENINGS: Final = ("Thank you for writing", "I have looked into it", "Here is what I found", "That is settled now")


def facts_of(request: str) -> dict[str, Any]:
    """What the message says in `key: value` lines and in JSON objects of one line."""
    facts: dict[str, Any] = dict(re.findall(r"^\W*(\w+)\s*[:=]\s*(.+?)\s*$", request, re.MULTILINE))
    for line in request.splitlines():
        found = re.search(r"\{.*\}", line)
        try:
            read = json.loads(found.group()) if found and not line.startswith("!") else None
        except json.JSONDecodeError:
            continue
        facts |= read if isinstance(read, dict) else {}
    return facts


def made_up(
    schema: Mapping[str, Any], facts: Mapping[str, Any], chance: random.Random, root: Mapping[str, Any] | None = None
) -> Any:
    """A value that the JSON schema allows; an object's properties are the facts of the same names, where there are."""
    root = schema if root is None else root
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for choices in ("anyOf", "oneOf", "allOf"):
        if choices in schema:
            return made_up(schema[choices][0], facts, chance, root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    match schema.get("type", "object" if "properties" in schema else "string"):
        case "object":
            wanted = schema.get("required", ())
            return {
                key: _as(facts[key], inner) if key in facts else made_up(inner, facts, chance, root)
                for key, inner in schema.get("properties", {}).items()
                if key in facts or key in wanted
            }
        case "array":
            return []
        case "integer":
            return max(int(schema.get("minimum", 0)), chance.randrange(100))
        case "number":
            return float(max(schema.get("minimum", 0), chance.randrange(100)))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return str(facts.get("text") or f"{chance.choice(OPENINGS)}.")


def _as(fact: Any, schema: Mapping[str, Any]) -> Any:
    """A fact of a `key: value` line is text, and the schema may want a number."""
    try:
        match schema.get("type"):
            case "integer":
                return int(fact)
            case "number":
                return float(fact)
            case "string":
                return fact if isinstance(fact, str) else json.dumps(fact)
    except ValueError:
        pass
    return fact
