"""Messages: what Celery needs to publish an action again, as JSON, and the digest that binds an approval to it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kombu.utils.json import JSONEncoder
from kombu.utils.json import loads as kombu_loads

from governance.core.digest import canonical_json, sha256
from governance.errors import ArgumentsNotJson, ArgumentsTooLarge, ResultNotJson

# Options that belong to one act of publishing, not to the message.
_OF_THE_CALL: Final = frozenset(
    {
        "producer",
        "connection",
        "publisher",
        "router",
        "result_cls",
        "task_type",
        "add_to_parent",
        "retry",
        "retry_policy",
        "countdown",
        "eta",
        "expires",
        "argsrepr",
        "kwargsrepr",
    }
)
_encode = JSONEncoder().default


def arguments_json(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], bytes_max: int) -> str:
    """The exact arguments as canonical JSON. Raises ArgumentsNotJson, ArgumentsTooLarge."""
    try:
        # As it will arrive: over the wire every key is a string, and sorts like one.
        arrived = json.loads(json.dumps([list(args), dict(kwargs)], default=_encode, allow_nan=False))
        text = canonical_json(arrived)
    except (TypeError, ValueError, RecursionError) as problem:
        raise ArgumentsNotJson(task, str(problem)) from None
    size = len(text.encode())
    if size > bytes_max:
        raise ArgumentsTooLarge(task, size, bytes_max)
    return text


def digest(task: str, arguments: str) -> str:
    """What a command_id and an approval are bound to: the task's name and its exact arguments."""
    return sha256(f"{task}\n{arguments}")


def pack(task: str, arguments: str, options: Mapping[str, Any]) -> str:
    """The recorded message. Raises ArgumentsNotJson for an option that cannot be published as JSON."""
    kept = {name: value for name, value in options.items() if name not in _OF_THE_CALL and value is not None}
    try:
        return (
            f'{{"task":{json.dumps(task)},"arguments":{arguments},"options":{canonical_json(kept, default=_encode)}}}'
        )
    except (TypeError, ValueError) as problem:
        raise ArgumentsNotJson(task, f"among its options: {problem}") from None


def unpack(message: str) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    """(task, args, kwargs, options) of a recorded message."""
    packed = kombu_loads(message)
    args, kwargs = packed["arguments"]
    return packed["task"], args, kwargs, packed["options"]


def result_json(task: str, value: object) -> str:
    """A task's return value as JSON. Raises ResultNotJson."""
    try:
        return canonical_json(value, default=_encode)
    except (TypeError, ValueError, RecursionError) as problem:
        raise ResultNotJson(task, type(value).__name__, str(problem)) from None


def result_of(text: str | None) -> Any:
    return kombu_loads(text) if text is not None else None
