"""Roles: who may decide what."""

import pytest

from governance.core.principals import Principal, checked_name, checked_roles, require
from governance.errors import InvalidOption, NotAllowed


def who(*roles: str) -> Principal:
    return Principal("ann", frozenset(roles))


@pytest.mark.parametrize(
    ("roles", "asked", "may"),
    [
        (("viewer",), (), False),
        (("operator",), (), False),
        (("approver",), (), True),
        (("approver",), ("team-lead",), True),
        (("approver:team-lead",), (), True),
        (("approver:team-lead",), ("team-lead", "on-call"), True),
        (("approver:team-lead",), ("on-call",), False),
        (("approver:team",), ("team-lead",), False),
        (("admin",), ("on-call",), True),
        ((), (), False),
    ],
)
def test_who_may_approve(roles: tuple[str, ...], asked: tuple[str, ...], may: bool) -> None:
    assert who(*roles).may_approve(asked) is may


def test_a_role_that_is_wanted_is_had_or_refused_by_name() -> None:
    require(who("operator"), "operator")
    require(who("admin"), "operator")
    require(who("approver:on-call"), "approver")
    with pytest.raises(NotAllowed, match="ann may not do what an operator does"):
        require(who("viewer"), "operator")


@pytest.mark.parametrize("name", ["", "drill", " ann", "ann\n", "a" * 101, "ann lee", "-ann"])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="principal="):
        checked_name(name)


@pytest.mark.parametrize("roles", [[], ["root"], ["approver:"], ["approver:Team Lead"], ["viewer", "boss"]])
def test_a_role_that_does_not_exist_is_refused(roles: list[str]) -> None:
    with pytest.raises(InvalidOption, match="approver:ROLE"):
        checked_roles(roles)
