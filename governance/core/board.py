"""The board: what people have said about what may be admitted, apart from the policy."""

from dataclasses import dataclass, field

from governance.core.budgets import Book
from governance.core.switches import Switch


@dataclass(frozen=True, slots=True)
class Board:
    """Every engaged switch and every budget that was set or raised, and the epoch at which that is all of them.

    `directory_epoch`: of the directory in force at it, 0 when none was loaded.
    """

    epoch: int
    engaged: tuple[Switch, ...] = ()
    book: Book = field(default_factory=Book)
    directory_epoch: int = 0
