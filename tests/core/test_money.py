"""Amounts are exact or refused."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.core.money import COST_MICROS_MAX, TOKENS_MAX, cost_micros, token_count, usd
from governance.errors import InvalidAmount


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.40", 400_000),
        ("0.004", 4_000),
        ("0.000125", 125),
        ("0.000001", 1),
        ("15", 15_000_000),
        ("15.00", 15_000_000),
        ("0.4000000", 400_000),
        ("00012.5", 12_500_000),
        ("0.4" + "0" * 5000, 400_000),
        ("1000000000", COST_MICROS_MAX),
        (0, 0),
        (3, 3_000_000),
        (0.1, 100_000),
        (0.4, 400_000),
        (1e-06, 1),
        (-0.0, 0),
        (15.0, 15_000_000),
        (Decimal("0.25"), 250_000),
        (Decimal("1E+3"), 1_000_000_000),
        (Decimal("0E-999999"), 0),
        (Decimal("1000000000.000000"), COST_MICROS_MAX),
    ],
)
def test_what_is_representable_is_exact(value: object, micros: int) -> None:
    assert cost_micros(value, "cost_usd") == micros


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, "0 or more"),
        ("-0.01", "0 or more"),
        (-0.5, "0 or more"),
        (Decimal("-0.000001"), "0 or more"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        (Decimal("NaN"), "finite"),
        (Decimal("sNaN"), "finite"),
        (Decimal("Infinity"), "finite"),
        ("NaN", "plain decimal"),
        ("Infinity", "plain decimal"),
        ("", "plain decimal"),
        (" 1", "plain decimal"),
        ("1 ", "plain decimal"),
        ("1\n", "plain decimal"),
        ("$1", "plain decimal"),
        ("1,5", "plain decimal"),
        ("1_000", "plain decimal"),
        ("1e3", "plain decimal"),
        (".5", "plain decimal"),
        ("+1", "plain decimal"),
        ("١", "plain decimal"),
        ("forty cents", "plain decimal"),
        (True, "not true or false"),
        (False, "not true or false"),
        (None, "plain decimal"),
        ([1], "plain decimal"),
        ({"usd": 1}, "plain decimal"),
        (b"1", "plain decimal"),
        (1j, "plain decimal"),
        ("0.0000001", "at most 6 decimals"),
        (0.1 + 0.2, "at most 6 decimals"),
        (1e-07, "at most 6 decimals"),
        (Decimal("1E-999999"), "at most 6 decimals"),
        ("0." + "1" * 5000, "at most 6 decimals"),
        ("1000000000.000001", "at most $1000000000.00"),
        ("9" * 5000, "at most $1000000000.00"),
        (10**5000, "at most $1000000000.00"),
        (1e300, "at most $1000000000.00"),
        (Decimal("1E+999999"), "at most $1000000000.00"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_is_not_an_amount_is_refused_with_its_name(value: object, expected: str) -> None:
    with pytest.raises(InvalidAmount) as refused:
        cost_micros(value, "cost_usd of task x")
    message = str(refused.value)
    assert message.startswith("cost_usd of task x=")
    assert expected in message
    assert len(message) < 400


def test_the_maximum_fits_a_bigint_many_times_over() -> None:
    assert COST_MICROS_MAX * 9_000 < 2**63
    assert TOKENS_MAX * 9_000_000 < 2**63


@settings(deadline=None)
@given(st.integers(0, COST_MICROS_MAX))
def test_every_representable_amount_survives_text(micros: int) -> None:
    shown = usd(micros)
    assert shown.startswith("$")
    assert len(shown.partition(".")[2]) >= 2
    assert cost_micros(shown[1:], "x") == micros


@settings(deadline=None)
@given(st.integers(0, COST_MICROS_MAX))
def test_the_decimal_context_of_the_caller_does_not_matter(micros: int) -> None:
    amount = Decimal(micros).scaleb(-6)
    with localcontext() as context:
        context.prec = 2
        assert cost_micros(amount, "x") == micros


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_float_is_its_shortest_text_or_refused(value: float) -> None:
    try:
        micros = cost_micros(value, "x")
    except InvalidAmount:
        return
    assert Decimal(repr(value)) * 1_000_000 == micros


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(), st.decimals(), st.binary(), st.none()))
def test_whatever_it_is_given_it_answers_or_refuses(value: object) -> None:
    try:
        micros = cost_micros(value, "x")
    except InvalidAmount as refused:
        micros = len(str(refused))  # it can be told
    assert 0 <= micros <= COST_MICROS_MAX


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (125, "$0.000125"),
        (400_000, "$0.40"),
        (450_000, "$0.45"),
        (455_000, "$0.455"),
        (15_000_000, "$15.00"),
        (1_234_567_890_000, "$1234567.89"),
        (-400_000, "-$0.40"),
    ],
)
def test_money_is_shown_with_every_digit(micros: int, shown: str) -> None:
    assert usd(micros) == shown


@pytest.mark.parametrize("count", [0, 1, 200_000, TOKENS_MAX])
def test_a_token_count_is_a_whole_number(count: int) -> None:
    assert token_count(count, "tokens") == count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, "0 or more"),
        (TOKENS_MAX + 1, "at most"),
        (10**5000, "at most"),
        (True, "whole number"),
        (1.0, "whole number"),
        (float("nan"), "whole number"),
        ("12", "whole number"),
        (Decimal(1), "whole number"),
        (None, "whole number"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_is_not_a_token_count_is_refused_with_its_name(value: object, expected: str) -> None:
    with pytest.raises(InvalidAmount) as refused:
        token_count(value, "tokens")
    assert str(refused.value).startswith("tokens=")
    assert expected in str(refused.value)
