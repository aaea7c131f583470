"""What a person sees while a fleet works: a live picture on a terminal, plain lines anywhere else. Always on stderr."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from acp_tasks.cli.output import amount, cell
from governance.core.actions import State
from governance.operations.reports import BudgetLine
from governance.operations.scorecard import Standing

_LINE_EVERY_S: Final = 1.0
_STYLES: Final[Mapping[str, str]] = {
    "queued": "cyan",
    "running": "blue",
    "parked": "yellow",
    "denied": "red",
    "done": "green",
    "failed": "bold red",
    "in_doubt": "bold red",
    "deferred": "yellow",
}
# Shown also while there are none.
_ALWAYS: Final = ("queued", "running", "parked", "denied", "done")


@dataclass(frozen=True, slots=True)
class Picture:
    """How things are at one moment."""

    counts: Mapping[State, int] = field(default_factory=dict)
    budgets: Sequence[BudgetLine] = ()
    starting: Sequence[str] = ()

    def shown(self) -> dict[str, int]:
        """The counts in the order and under the names in which people see them."""
        named = {("done" if state is State.SUCCEEDED else state.value): count for state, count in self.counts.items()}
        return {name: named.get(name, 0) for name in _STYLES if name in _ALWAYS or named.get(name)}


class Display(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str, style: str = "") -> None:
        """Something happened; it stays on the screen."""
        ...

    def show(self, picture: Picture, *, last: bool = False) -> None:
        """How things are now; it replaces what was shown before. What comes last is shown in any case."""
        ...


def make_display(*, live: bool) -> Display:
    """A live one if stderr is a terminal that can show it."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    return LiveDisplay(console) if live and console.is_terminal and not console.is_dumb_terminal else PlainDisplay()


class PlainDisplay:
    """One line for everything that happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._next_s = 0.0
        self._last = Picture()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        print(f"[{time.monotonic() - self._started_s:6.1f} s] {cell_lines(text)}", file=sys.stderr, flush=True)

    def show(self, picture: Picture, *, last: bool = False) -> None:
        now_s = time.monotonic()
        if picture.counts == self._last.counts or (now_s < self._next_s and not last):
            return
        self._next_s, self._last = now_s + _LINE_EVERY_S, picture
        self.say(", ".join(f"{count} {name}" for name, count in picture.shown().items()))


class LiveDisplay:
    """A picture at the bottom of the terminal, what happens scrolls by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(cell_lines(text), style=style))

    def show(self, picture: Picture, *, last: bool = False) -> None:
        self._live.update(_drawn(picture), refresh=True)


def refusal(standing: Standing) -> str:
    """An action that did not simply run, with the rule and the reason."""
    why = f"{standing.rule}: {standing.reason}" if standing.rule and standing.error is None else standing.error or ""
    return f"{standing.state:9} {standing.name} {standing.resource or ''} ({standing.id})  {why}"


def style_of(state: State) -> str:
    return _STYLES.get(state.value, "")


def cell_lines(text: str) -> str:
    """Names and reasons come from agents: nothing in them may move the cursor."""
    return "\n".join(cell(line) for line in text.splitlines())


def _drawn(picture: Picture) -> RenderableType:
    counts = Text()
    for name, count in picture.shown().items():
        counts.append(f"{name} ", style="dim")
        counts.append(f"{count}   ", style=_STYLES[name] if count else "dim")
    parts: list[RenderableType] = [counts]
    if picture.budgets:
        parts.append(_bars(picture.budgets))
    if picture.starting:
        parts.append(Text(f"starting: {', '.join(picture.starting)}", style="dim"))
    return Group(*parts)


def _bars(budgets: Sequence[BudgetLine]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for line in budgets:
        used = line.posted + line.held
        share = (
            ProgressBar(total=max(line.limit_amount, 1), completed=used, width=30)
            if line.limit_amount is not None
            else Text("unlimited", style="dim")
        )
        told = f"{amount(line.unit, used)} of {amount(line.unit, line.limit_amount)}"
        table.add_row(cell(line.scope_id), line.unit.value, share, told)
    return table
