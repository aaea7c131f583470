"""Times as people type them: a duration such as `30m`, an instant in ISO 8601 with its zone."""

from datetime import UTC, datetime, timedelta
from typing import Final

from governance.core.instants import SECOND_US
from governance.errors import InvalidOption

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_DIGITS_MAX: Final = 9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION: Final = "a duration such as 90s, 30m, 2h or 1d"
_INSTANT: Final = "an instant with its zone such as 2030-01-31T18:00:00Z"


def duration_s(option: str, text: str) -> int:
    """Seconds, at least one. Raises InvalidOption, which calls the duration `option`."""
    seconds = _seconds(text)
    if seconds is None:
        raise InvalidOption(option, text, _DURATION)
    return seconds


def instant_us(option: str, text: str, now_us: int, *, repeatable: bool = False) -> int:
    """An instant, or the end of a duration that begins now: not `repeatable`, since every now gives another one.

    Raises InvalidOption, which calls it `option`.
    """
    seconds = _seconds(text)
    if seconds is not None:
        if repeatable:
            raise InvalidOption(option, text, f"{_INSTANT}: with --command-id a repeat must say the same")
        return now_us + seconds * SECOND_US
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidOption(option, text, f"{_DURATION}, or {_INSTANT}") from None
    if instant.tzinfo is None:
        # Somebody's local time, or the UTC that every command prints: a guess could be hours off.
        raise InvalidOption(option, text, _INSTANT)
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _seconds(text: str) -> int | None:
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or len(number) > _DIGITS_MAX:
        return None
    return int(number) * _UNITS[unit] or None
