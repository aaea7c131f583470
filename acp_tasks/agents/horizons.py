"""Horizons: how long a fleet works by itself, in cycles, windows and budgets; and the policy that says so."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from governance.errors import InvalidOption
from governance.policy_file import canonical

STREAM: Final = "support"
_WEEK_S: Final = 7.0 * 24 * 3600
# A drill takes some seconds, whatever the clock says.
_DRILL_EVERY_S_MIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Horizon:
    """`cycles` of `every_s` seconds each, in windows of `window`, with these limits for each window.

    `sessions` is how many windows that is; the fleet's clock may cut the first and the last.
    """

    name: str
    cycles: int
    every_s: int
    window: str
    sessions: int
    checkpoint_every: int
    cost_usd: str
    actions: int
    database: str
    workers: int

    @property
    def seconds(self) -> int:
        """How long it is, on the fleet's clock."""
        return self.cycles * self.every_s

    def drill_every_s(self, compress: float) -> float:
        """Real seconds between two drills of a kind, when it passes `compress` times faster than the world."""
        return max(_DRILL_EVERY_S_MIN, min(_WEEK_S, self.seconds / 2) / compress)


HORIZONS: Final = {
    horizon.name: horizon
    for horizon in (
        Horizon("hour", 12, 300, "1h", 1, 12, "15.00", 1000, "sqlite", 2),
        Horizon("day", 48, 1800, "4h", 6, 12, "30.00", 2000, "sqlite", 2),
        Horizon("week", 168, 3600, "1d", 7, 24, "100.00", 10_000, "postgres", 3),
        Horizon("month", 720, 3600, "1d", 30, 24, "100.00", 10_000, "postgres", 3),
    )
}


def find_horizon(name: str) -> Horizon:
    """Raises InvalidOption."""
    if name not in HORIZONS:
        raise InvalidOption("horizon", name, ", ".join(HORIZONS))
    return HORIZONS[name]


def write_policy(horizon: Horizon, given: str, path: Path) -> None:
    """The given policy's rules and streams, with the desk's windows and budgets as the horizon has them."""
    document: dict[str, Any] = json.loads(canonical(given))
    document["streams"][STREAM] = {
        "window": horizon.window,
        "limits": {"cost_usd": horizon.cost_usd, "actions": horizon.actions},
        "on_exhausted": "defer",
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
