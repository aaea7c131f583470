"""Following actions until nothing more will happen to them by itself."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from governance.core.actions import TERMINAL, State
from governance.operations.context import Governance
from governance.operations.scorecard import Standing, standings

# Of a long queue the oldest are looked at: the rest waits behind them.
_LOOKED_AT: Final = 500


class Watch:
    """Knows where each watched action stood when it was last looked at."""

    def __init__(self, gov: Governance) -> None:
        self._gov = gov
        self._started_us = gov.clock.now_us()
        self._standings: dict[str, Standing | None] = {}
        self._open: dict[str, None] = {}

    def add(self, action_id: str) -> bool:
        """False when it is watched already."""
        if action_id in self._standings:
            return False
        self._standings[action_id] = None
        self._open[action_id] = None
        return True

    @property
    def action_ids(self) -> list[str]:
        return list(self._standings)

    def is_new(self, standing: Standing) -> bool:
        """Whether it was submitted since this watch began."""
        return standing.created_us >= self._started_us

    def look(self) -> list[Standing]:
        """Looks at the oldest open actions; those that moved, or are seen for the first time."""
        return self._look(list(islice(self._open, _LOOKED_AT)))

    def look_again(self) -> list[Standing]:
        """Looks at everything that could still move, as a decision may have released what waited."""
        return self._look([name for name, known in self._standings.items() if known is None or not _over(known)])

    @property
    def open(self) -> list[Standing]:
        """What is not settled, as far as it was looked at."""
        return [known for known in map(self._standings.__getitem__, self._open) if known is not None]

    @property
    def settled(self) -> bool:
        return not self._open

    def counts(self) -> Counter[State]:
        """Actions by state; one that was not looked at yet counts as queued."""
        return Counter(known.state if known else State.QUEUED for known in self._standings.values())

    def sessions(self) -> set[str]:
        return {known.session_id for known in self._standings.values() if known is not None}

    def older(self, action_ids: Iterable[str]) -> int:
        """How many of these had been submitted before this watch began."""
        found = map(self._standings.get, action_ids)
        return sum(1 for known in found if known is not None and not self.is_new(known))

    def _look(self, action_ids: list[str]) -> list[Standing]:
        moved = []
        for standing in standings(self._gov, action_ids):
            known = self._standings[standing.id]
            self._standings[standing.id] = standing
            if standing.settled:
                self._open.pop(standing.id, None)
            else:
                self._open[standing.id] = None
            if known is None or known.state is not standing.state:
                moved.append(standing)
        return moved


def _over(standing: Standing) -> bool:
    return standing.state in TERMINAL and standing.delivered
