"""Errors say what to do, and survive the way through pickling and Celery's JSON results."""

import inspect
import pickle

import pytest

from governance import errors


def every_error() -> list[type[errors.GovernanceError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, errors.GovernanceError)]


def example(kind: type[errors.GovernanceError]) -> errors.GovernanceError:
    lists = {"problems", "suggest"}
    return kind(*([f"<{name}>"] if name in lists else f"<{name}>" for name in kind.fields))


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_message(kind: type[errors.GovernanceError]) -> None:
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.args == error.args
    assert str(again) == str(error)
    for name in kind.fields:
        assert getattr(again, name) == getattr(error, name)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_a_message_names_what_it_is_about(kind: type[errors.GovernanceError]) -> None:
    said = str(example(kind))
    assert "{" not in said
    named = [name for name in kind.fields if f"<{name}>" in said]
    assert named or not kind.fields


def test_an_error_takes_exactly_its_fields() -> None:
    with pytest.raises(TypeError, match="CommandConflict takes command_id, first"):
        errors.CommandConflict("only one")
