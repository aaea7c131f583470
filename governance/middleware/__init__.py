"""What wraps a run. Each middleware is one function that calls `proceed()` once or not at all, and fails closed.

The default chain, outermost first:

    logged      binds the action to every log line
    admitted    takes the holds and the attempt before the body; says what becomes of the message when it may not run
    settled     ends the attempt after the body: posts, releases, records; on disk when the store is away
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

from governance.middleware.admission import admitted
from governance.middleware.call import Call, Outcome
from governance.middleware.logs import logged
from governance.middleware.settlement import settled

Proceed: TypeAlias = Callable[[], Outcome]
Middleware: TypeAlias = Callable[[Call, Proceed], Outcome]

DEFAULT: tuple[Middleware, ...] = (logged, admitted, settled)


def compose(middlewares: Sequence[Middleware], call: Call, body: Proceed) -> Outcome:
    """Runs `body` inside `middlewares`, the first one outermost."""

    def wrap(inner: Proceed, middleware: Middleware) -> Proceed:
        return lambda: middleware(call, inner)

    return reduce(wrap, reversed(middlewares), body)()
