"""Content digests. One canonical text for a value, so that equal content has one digest on every machine."""

import hashlib
import json
from collections.abc import Callable


def canonical_json(value: object, default: Callable[[object], object] | None = None) -> str:
    """`value` as JSON with sorted keys and no spaces, in ASCII: no text can hold what a database refuses to keep.

    Raises ValueError for NaN and infinities, TypeError for what is not JSON and `default` does not translate.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=default)


def storable(text: str) -> str:
    """`text` with what no database keeps (NUL, half surrogate pairs) written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
