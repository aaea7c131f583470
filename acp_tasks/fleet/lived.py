"""What a fleet came to that lived through a horizon: for people, for machines, and what is missing in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from acp_tasks.agents.horizons import Horizon
from acp_tasks.cli import output
from acp_tasks.cli.scorecard import write_trend
from governance.core.actions import State
from governance.core.drills import Kind
from governance.operations.audit import Verification
from governance.operations.rollups import Trend

_DAY_S: Final = 24 * 3600
# Sealing, and two ticks of the job that rolls hours up.
_SCORECARD_LATE_S: Final = 75.0
# The present one, and the one before while it is emptied; beat's seconds are hours of a compressed month.
_UNCLOSED_MAX: Final = 3
# The first drills begin after one cadence, one kind after the other.
_CADENCES: Final = 3


@dataclass(frozen=True)
class Lived:
    """What a fleet left behind that lived through a horizon.

    `drills` counts them by verdict, `drilled` are the kinds that passed; their own actions and requests count nowhere.
    """

    horizon: Horizon
    compress: float
    cycles: int
    sessions: int
    closed: int
    checkpoints: int
    drills: Mapping[str, int]
    drilled: tuple[Kind, ...]
    actions: Mapping[str, int]
    timed_out: int
    effects: int
    audit: Verification
    scorecard: Trend | None
    duration_s: float
    state_dir: Path
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "ok": self.ok,
            "horizon": self.horizon.name,
            "compress": self.compress,
            "cycles": self.cycles,
            "sessions": self.sessions,
            "sessions_closed": self.closed,
            "checkpoints": self.checkpoints,
            "drills": dict(self.drills),
            "drilled": list(self.drilled),
            "actions": dict(self.actions),
            "timed_out": self.timed_out,
            "effects": self.effects,
            "scorecard_until": output.when(self.scorecard.until_us) if self.scorecard is not None else None,
            "audit": {"ok": self.audit.ok, "events": self.audit.events, "accounts": self.audit.accounts},
            "duration_s": round(self.duration_s, 1),
            "state_dir": str(self.state_dir),
            "problems": self.problems,
        }

    def write(self) -> None:
        """For people, to stdout."""
        passed, run = self.drills["passed"], sum(self.drills.values())
        click.echo()
        output.write_fields(
            {
                "horizon": f"{self.horizon.name}, {self.compress:g} times faster than the world",
                "cycles": f"{self.cycles} of {self.horizon.cycles}",
                "sessions": f"{self.sessions} ({self.closed} closed with a summary)",
                "checkpoints": str(self.checkpoints),
                "drills": f"{passed} of {run} passed" if run else "none was due",
                "actions": ", ".join(f"{count} {name}" for name, count in self.actions.items()),
                "timed out": f"{self.timed_out} requests that nobody answered, each denied",
                "effects": f"{self.effects}, each once for its command_id",
                "ledger": f"{self.audit.accounts} accounts balanced" if self.audit.ok else "NOT balanced",
                "trail": f"{self.audit.events} events verified" if self.audit.ok else "NOT verified",
                "took": f"{self.duration_s:.0f} s",
                "kept in": str(self.state_dir),
            }
        )
        if self.scorecard is not None:
            click.echo()
            write_trend(self.scorecard)

    def write_problems(self) -> None:
        """What is not as it should be, to stderr, whatever the other output is."""
        for problem in self.problems:
            click.echo(f"acp: {output.cell(problem)}", err=True)


def problems(lived: Lived) -> list[str]:
    """Everything that is not as it should be after such a horizon, a line each."""
    horizon = lived.horizon
    found = list(lived.audit.problems)
    if lived.cycles < horizon.cycles:
        found.append(f"{lived.cycles} of {horizon.cycles} cycles are over")
    if lived.sessions < horizon.sessions:
        found.append(f"{lived.sessions} sessions, expected at least {horizon.sessions}")
    if lived.checkpoints < horizon.cycles // horizon.checkpoint_every:
        found.append(f"{lived.checkpoints} checkpoints, expected {horizon.cycles // horizon.checkpoint_every}")
    if lived.closed < lived.sessions - _UNCLOSED_MAX:
        found.append(f"{lived.closed} of {lived.sessions} sessions are closed")
    if lived.drills["failed"]:
        found.append(f"{lived.drills['failed']} drills failed: acp drill list")
    if horizon.seconds / lived.compress >= _CADENCES * horizon.drill_every_s(lived.compress):
        found.extend(f"no {kind} drill passed" for kind in Kind if kind not in lived.drilled)
    if horizon.seconds >= _DAY_S:
        behind = lived.scorecard.behind_hours if lived.scorecard is not None else None
        if behind is None or behind > lived.compress * _SCORECARD_LATE_S / 3600 + 1:
            found.append(f"scorecards are {behind if behind is not None else 'all'} hours behind: acp scorecard show")
    wrong = (State.FAILED, State.IN_DOUBT)
    return found + [f"{lived.actions[state]} actions are {state}" for state in wrong if lived.actions.get(state)]
