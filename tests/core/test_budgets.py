"""Budgets: whom they are about, the names of their accounts, and which one a refusal names."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.core.budgets import (
    EACH,
    Book,
    Charge,
    Part,
    Payer,
    Raise,
    TokenBudgetConfig,
    budget_of,
    charges_of,
    model_patterns,
    parse_budget,
    parts_of,
)
from governance.core.ledger import Account, Unit, exhausted
from governance.core.plans import OnExhausted
from governance.core.switches import Scope
from governance.core.windows import NEVER_US, Period, Window

ANN = Payer("ann", "desk", "acme", "a1", "support")
NOW_US = 1_800_000_000_000_000
VALUES = st.none() | st.sampled_from(["a", "b", "a,team=b", "%2C", "ü:#01"])
PAYERS = st.builds(Payer, VALUES, VALUES, VALUES, VALUES, st.sampled_from(["s", "t"]))
IDENTITIES = st.dictionaries(
    st.sampled_from(list(Part)), st.sampled_from([EACH, "a", "b", "a,team=b", "s"]), min_size=1
)


def budget(id_: str = "b", identity: Mapping[Part, str] | None = None, **changes: object) -> TokenBudgetConfig:
    made: dict[str, object] = {"max_tokens": 10, "period": Period.DAILY, **changes}
    return TokenBudgetConfig(id=id_, identity=identity or {Part.ORG: "acme"}, **made)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("identity", "who"),
    [
        ({Part.USER: "ann"}, "user=ann"),
        ({Part.USER: "bob"}, None),
        ({Part.ORG: EACH}, "org=acme"),
        ({Part.ORG: "acme", Part.USER: EACH}, "user=ann,org=acme"),
        ({Part.ORG: "acme", Part.TEAM: "other"}, None),
        ({Part.STREAM: "support", Part.AGENT: EACH}, "agent=a1,stream=support"),
    ],
)
def test_a_budget_is_about_whoever_has_its_part(identity: dict[Part, str], who: str | None) -> None:
    assert budget(identity=identity).who(ANN) == who


def test_whoever_lacks_the_part_is_not_charged() -> None:
    assert budget(identity={Part.ORG: EACH}).who(Payer("ann", None, None, None, "s")) is None


@given(IDENTITIES, PAYERS, PAYERS)
def test_two_are_on_one_account_only_if_they_have_the_same_parts(
    identity: dict[Part, str], one: Payer, other: Payer
) -> None:
    about = budget(identity=identity)
    if about.who(one) is not None and about.who(one) == about.who(other):
        assert all(getattr(one, part) == getattr(other, part) for part in identity)


@given(IDENTITIES, PAYERS)
def test_whose_account_it_is_can_be_read_from_its_name(identity: dict[Part, str], payer: Payer) -> None:
    who = budget(identity=identity).who(payer)
    if who is not None:
        assert parts_of(who) == {part: getattr(payer, part) for part in identity}


def test_an_account_is_named_by_budget_period_whose_window_and_unit() -> None:
    found = charges_of([budget(max_cost_micros=5), budget("w", period=Period.WEEKLY)], ANN, NOW_US)
    assert sorted(found.accounts) == [
        "budget:b:daily:org=acme:2027-01-15T00:00:00Z:cost_micros",
        "budget:b:daily:org=acme:2027-01-15T00:00:00Z:tokens",
        "budget:w:weekly:org=acme:2027-01-11T00:00:00Z:tokens",
    ]
    day = Window(1_799_971_200_000_000, 1_800_057_600_000_000)
    assert (found.charges[0].window, found.until_us, found.since_us) == (day, day.end_us, day.start_us)
    assert budget_of(found.charges[0].scope_id) == ("b", "org=acme")


def test_what_people_set_counts_before_the_policy_and_raises_add() -> None:
    ours, theirs = budget("a"), budget("b", max_tokens=99)
    lasting = Raise("1", "b", None, 0, 5, NOW_US + 9), Raise("2", "b", "org=other", 0, 7, NOW_US + 3)
    book = Book({"b": theirs}, lasting)
    assert book.in_force([budget("b"), ours]) == (ours, theirs)
    assert book.raises_until_us == NOW_US + 3
    charge = Charge(theirs, "org=acme", Window(0, 1))
    assert [book.raised(charge, unit) for unit in Unit] == [0, 0, 5]
    assert charge.account(Unit.TOKENS, 5).limit == 104
    assert Book().raises_until_us == NEVER_US


def test_a_budget_is_kept_as_text() -> None:
    made = budget(
        identity={Part.USER: EACH, Part.ORG: "x"}, allowed_models=("gpt-*",), soft=(7,), on_exhausted=OnExhausted.PARK
    )
    assert parse_budget(made.text) == made
    assert model_patterns(charges_of([made, budget()], Payer("u", None, "x", None, "s"), NOW_US).charges) == (
        ("b", ("gpt-*",)),
    )


def test_a_budget_stops_exactly_whom_it_is_about() -> None:
    charge = Charge(budget(identity={Part.AGENT: EACH}), "agent=a1", Window(0, 1))
    assert charge.scope(ANN) == (Scope.AGENT, "a1")


def test_the_tightest_budget_is_named() -> None:
    def account(id_: str, limit: int, used: int, resets_us: int = 1, unit: Unit = Unit.COST) -> Account:
        return Account(id_, unit, limit, used, 0, resets_us)

    amounts = {Unit.COST: 50, Unit.TOKENS: 1, Unit.ACTIONS: 1}
    roomy, half, tenth = account("a", 1000, 0), account("b", 80, 40), account("c", 400, 360)
    assert exhausted([roomy, half, tenth], amounts) == tenth
    assert exhausted([roomy, half], amounts) == half
    assert exhausted([roomy], amounts) is None
    # Of equals the one that resets last, and then by name; nothing left is as tight as can be.
    later = account("d", 400, 360, resets_us=2)
    assert exhausted([tenth, later], amounts) == later
    assert exhausted([account("z", 400, 360), tenth], amounts) == tenth
    assert exhausted([tenth, account("e", 5, 5, unit=Unit.TOKENS)], amounts) == account("e", 5, 5, unit=Unit.TOKENS)
    assert exhausted([account("f", 0, 0), tenth], amounts) == account("f", 0, 0)
