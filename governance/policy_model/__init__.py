"""The shape of a policy file: one model per thing, every key known, every value strict.

Values are what the core wants (microseconds, micro-USD, compiled conditions) and are written back as the one canonical
way to say them.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from governance.core import identity
from governance.policy_model.budgets import BudgetModel
from governance.policy_model.models import ModelsModel
from governance.policy_model.rules import RuleModel
from governance.policy_model.streams import StreamModel
from governance.policy_model.values import Model, Name, some


def _version(value: object) -> object:
    if type(value) is not int or value != 1:
        raise ValueError("expected 1, the version of the format that this release reads")
    return value


class PolicyModel(Model):
    version: Annotated[int, BeforeValidator(_version)]
    streams: dict[Name, StreamModel]
    rules: tuple[Annotated[RuleModel, Field(discriminator="effect")], ...]
    budgets: tuple[BudgetModel, ...] = ()
    models: ModelsModel | None = None
    require_identity: Annotated[tuple[identity.Part, ...], BeforeValidator(some)] = ()
