"""Following actions until nothing more will happen to them by itself; of an agent's runs also what they ask for."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final

from governance.core.actions import TERMINAL, State
from governance.core.endings import WAITS
from governance.core.instants import SECOND_US
from governance.operations.context import Governance
from governance.operations.scorecard import Standing, made_by, standings

# Of a long queue the oldest are looked at: the rest waits behind them.
_LOOKED_AT: Final = 500
# What was made earlier than what is known by now may be committed so much later.
_LATE_US: Final = 2 * SECOND_US


class Watch:
    """Knows where each watched action stood when it was last looked at."""

    def __init__(self, gov: Governance) -> None:
        self._gov = gov
        self._started_us = gov.clock.now_us()
        self._standings: dict[str, Standing | None] = {}
        self._open: dict[str, None] = {}
        # Runs by their command_id, with what each has asked for.
        self._runs: dict[str, list[str]] = {}
        self._run_ids: set[str] = set()
        self._seen: tuple[int, str] = (0, "")

    def add(self, action_id: str) -> bool:
        """False when it is watched already."""
        if action_id in self._standings:
            return False
        self._standings[action_id] = None
        self._open[action_id] = None
        return True

    def follow(self, run_id: str, command_id: str) -> None:
        """Watches a run of an agent, and from now on every action that it asks for."""
        self.add(run_id)
        self._runs.setdefault(command_id, [])
        self._run_ids.add(run_id)

    def discover(self, agent_id: str) -> None:
        """Adds what the followed runs of an agent have asked for since the last time."""
        if not self._runs:
            return
        while found := made_by(self._gov, agent_id, after=self._seen, limit=_LOOKED_AT):
            for standing in found:
                run = standing.command_id.rpartition(":")[0]
                if run in self._runs and self.add(standing.id):
                    self._runs[run].append(standing.id)
            self._seen = (found[-1].created_us, found[-1].id)
        self._seen = (max(self._seen[0] - _LATE_US, 0), "")

    @property
    def run_ids(self) -> list[str]:
        return [action_id for action_id in self._standings if action_id in self._run_ids]

    @property
    def asked_ids(self) -> list[str]:
        """Everything that is watched and no run."""
        return [action_id for action_id in self._standings if action_id not in self._run_ids]

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
            if standing.settled and not self._goes_on(standing):
                self._open.pop(standing.id, None)
            else:
                self._open[standing.id] = None
            if known is None or known.state is not standing.state:
                moved.append(standing)
        return moved

    def _goes_on(self, standing: Standing) -> bool:
        """Whether a run waits for nothing any more: it is woken in this moment."""
        if standing.state is not State.DEFERRED or standing.rule != WAITS or standing.id not in self._run_ids:
            return False
        asked = [self._standings[one] for one in self._runs.get(standing.command_id, ())]
        return all(known is not None and _over(known) for known in asked)


def _over(standing: Standing) -> bool:
    return standing.state in TERMINAL and standing.delivered
