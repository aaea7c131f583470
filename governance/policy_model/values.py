"""What several parts of a policy file are made of: durations, amounts, instants, names, patterns."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints

from governance.core.instants import SECOND_US, iso
from governance.core.money import MICROS_PER_USD, cost_micros, token_count
from governance.core.windows import zone
from governance.errors import InvalidAmount, InvalidOption

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def duration(value: object) -> int:
    """`90s`, `15m`, `1h` or `1d` in microseconds."""
    if isinstance(value, str) and value[:-1].isascii() and value[:-1].isdigit() and len(value) <= 12:
        seconds = _SECONDS.get(value[-1])
        if seconds and int(value[:-1]):
            return int(value[:-1]) * seconds * SECOND_US
    raise ValueError("expected a duration such as 90s, 15m, 1h or 1d")


def _timezone(name: str) -> str:
    try:
        return zone(name).key
    except InvalidOption as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _micros(value: object) -> int:
    try:
        return cost_micros(value, "cost_usd")
    except InvalidAmount as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _tokens(value: object) -> int:
    try:
        return token_count(value, "tokens")
    except InvalidAmount as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _instant(value: object) -> int:
    """An ISO 8601 instant with its zone, in microseconds."""
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError("expected an instant with its zone such as 2030-01-31T18:00:00Z")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def some(value: object) -> object:
    """One or a list. An empty list would match nothing, which nobody means."""
    if value == []:
        raise ValueError("expected at least one")
    return value if isinstance(value, list) else [value]


Text: TypeAlias = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=1000)]
Name: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
Pattern: TypeAlias = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Patterns: TypeAlias = Annotated[tuple[Pattern, ...] | None, BeforeValidator(some)]
Whose: TypeAlias = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200)]
Tokens: TypeAlias = Annotated[int, BeforeValidator(_tokens)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Duration: TypeAlias = Annotated[
    int, BeforeValidator(duration), PlainSerializer(lambda length_us: f"{length_us // SECOND_US}s")
]
Usd: TypeAlias = Annotated[
    int,
    BeforeValidator(_micros),
    PlainSerializer(lambda micros: f"{micros // MICROS_PER_USD}.{micros % MICROS_PER_USD:06d}"),
]
Instant: TypeAlias = Annotated[int, BeforeValidator(_instant), PlainSerializer(iso)]
Timezone: TypeAlias = Annotated[Text, AfterValidator(_timezone)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
