"""Amounts: exact text in, integers out. Money is micro-USD (a millionth of a dollar), tokens are counted.

An amount that cannot be represented is refused, never rounded: a thousand calls of $0.0000004 must not become $0.
"""

import re
from decimal import Decimal
from typing import Final

from governance.errors import InvalidAmount

MICROS_PER_USD: Final = 1_000_000

#: A billion dollars. A BIGINT holds the sum of nine thousand of them, and a JSON number holds one exactly.
COST_MICROS_MAX: Final = 1_000_000_000 * MICROS_PER_USD

#: A BIGINT holds the sum of nine million of them.
TOKENS_MAX: Final = 1_000_000_000_000

_DECIMALS: Final = 6
_PLAIN: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_LONGEST_SHOWN: Final = 80

_USD: Final = 'USD as plain decimal text such as "0.40"'


def cost_micros(value: object, name: str) -> int:
    """`value` in USD as micro-USD, exactly; 0 to COST_MICROS_MAX.

    A float counts as the shortest decimal text that names it (0.1 is a tenth), so one with rounding noise
    (0.1 + 0.2) is refused for its decimals. Raises InvalidAmount, which calls the amount `name`.
    """
    amount = _decimal(value, name)
    if not amount.is_finite():
        raise _refused(name, value, f"a finite amount: {_USD}")
    if not amount:
        return 0
    if amount < 0:
        raise _refused(name, value, "0 or more USD")
    if amount > COST_MICROS_MAX // MICROS_PER_USD:
        raise _refused(name, value, f"at most {usd(COST_MICROS_MAX)}")
    micros = _micros(amount)
    if micros is None:
        raise _refused(name, value, f"at most {_DECIMALS} decimals, less than a micro-USD is not representable")
    return micros


def token_count(value: object, name: str) -> int:
    """`value` as a number of tokens, 0 to TOKENS_MAX. Raises InvalidAmount, which calls the count `name`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refused(name, value, "a whole number of tokens")
    if value < 0:
        raise _refused(name, value, "0 or more tokens")
    if value > TOKENS_MAX:
        raise _refused(name, value, f"at most {TOKENS_MAX} tokens")
    return int(value)


def usd(micros: int) -> str:
    """Micro-USD as people read it: at least cents, and every digit that is there ("$0.40", "$0.000125")."""
    sign = "-" if micros < 0 else ""
    dollars, fraction = divmod(abs(micros), MICROS_PER_USD)
    decimals = f"{fraction:0{_DECIMALS}d}".rstrip("0").ljust(2, "0")
    return f"{sign}${dollars}.{decimals}"


def _decimal(value: object, name: str) -> Decimal:
    match value:
        case bool():
            raise _refused(name, value, f"{_USD}, not true or false")
        case Decimal() | int():
            return Decimal(value)
        case float():
            return Decimal(float.__repr__(value))
        case str() if _PLAIN.fullmatch(value):
            return Decimal(value)
        case _:
            raise _refused(name, value, _USD)


def _micros(amount: Decimal) -> int | None:
    """A finite amount of USD in micro-USD, or None when it has parts of one. Independent of the decimal context."""
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int), "a finite Decimal has an integer exponent"
    kept = len(digits)
    while digits[kept - 1] == 0:  # "0.4000000" has one decimal; the caller has dealt with 0
        kept -= 1
    shift = exponent + len(digits) - kept + _DECIMALS
    return int("".join(map(str, digits[:kept]))) * 10**shift if shift >= 0 else None


def _refused(name: str, value: object, expected: str) -> InvalidAmount:
    """The error, with a value that prints: Python refuses to print an integer of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN * 3:
        value = f"an integer of {value.bit_length()} bits"
    elif isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        value = value[:_LONGEST_SHOWN] + "…"
    return InvalidAmount(name, value, expected)
