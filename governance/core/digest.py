"""Content digests. One canonical text for a value, so that equal content has one digest on every machine."""

import hashlib
import json
from collections.abc import Callable


def canonical_json(value: object, default: Callable[[object], object] | None = None) -> str:
    """`value` as JSON with sorted keys and no spaces.

    Raises ValueError for NaN and infinities, TypeError for what is not JSON and `default` does not translate.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=default
    )


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
