"""Instants are integers, UTC microseconds since the epoch: exact, portable between databases, hashed as they are."""

from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(at_us: int) -> str:
    """An instant as people and logs read it: ISO 8601 in UTC, with fractions only where there are some."""
    precision = "auto" if at_us % SECOND_US == 0 else "milliseconds"
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec=precision).replace("+00:00", "Z")
