"""Other arguments than the ones that were asked for, as an approver gives them: the message that is published then.

Everything else of the recorded message stays: its options, its links, who asked.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.utils.json import loads as kombu_loads

from acp_tasks.governed import GovernedTask
from acp_tasks.message import arguments_json, digest, pack, unpack
from acp_tasks.terms import resource_of
from governance.errors import InvalidOption
from governance.operations.decide import EditedArguments

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Edited:
    """The edited message; `checked` is False when the app does not know the task, so that only the worker will see
    whether it takes such arguments.
    """

    arguments: EditedArguments
    task: str
    checked: bool


def edit(app: Celery, message: str, resource: str | None, text: str, *, bytes_max: int) -> Edited:
    """`message` with the arguments of `text`: a JSON object of keyword arguments, which leaves the positional ones as
    they are, or `[args, kwargs]` for both.

    Raises InvalidOption when `text` is neither or the task does not take them, ArgumentsNotJson, ArgumentsTooLarge,
    ResourceTemplateInvalid.
    """
    name, args_before, _, options = unpack(message)
    args, kwargs = _read(text, args_before)
    arguments = arguments_json(name, args, kwargs, bytes_max)
    task = _known(app, name)
    if task is not None:
        _check(task, text, args, kwargs)
        resource = resource_of(name, task.terms.resource, task.named(tuple(args), dict(kwargs)))
    edited = EditedArguments(pack(name, arguments, options), digest(name, arguments), resource)
    return Edited(edited, name, checked=task is not None)


def _read(text: str, args_before: Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Typed values (dates, decimals) are read as a worker reads them, so that their digest is the one it computes."""
    try:
        given = kombu_loads(text)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as problem:
        raise _refused(text, f"JSON ({problem})") from None
    match given:
        case dict():
            return args_before, given
        case [list() as args, dict() as kwargs]:
            return args, kwargs
        case _:
            raise _refused(text, "a JSON object of keyword arguments, or [args, kwargs]")


def _known(app: Celery, name: str) -> GovernedTask | None:
    """The task, when this process has its code."""
    # Whatever somebody's module raises at import is for `acp doctor` to tell: its tasks are not known here then.
    with suppress(Exception):
        app.loader.import_default_modules()
    task = app.tasks.get(name)
    return task if isinstance(task, GovernedTask) and task.governed else None


def _check(task: GovernedTask, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        task.signature_of_run.bind(*args, **kwargs)
    except TypeError as problem:
        raise _refused(text, f"what {task.name} takes, {task.signature_of_run} ({problem})") from None


def _refused(text: str, expected: str) -> InvalidOption:
    return InvalidOption("edit", text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…", expected)
