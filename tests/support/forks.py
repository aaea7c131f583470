"""Processes that begin at the speed of a fork.

Most of what a process of ours takes is to import what all of them need. A fork server does that once, from a process
with no threads; its children import only what is theirs.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any, Final

FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["acp_tasks.bootstrap"])


def at_once(count: int, what: Callable[..., Any], *args: Any) -> None:
    """Runs `what(*args)` in `count` processes that start at one moment; each has to succeed."""
    barrier = FORKS.Barrier(count)
    processes = [FORKS.Process(target=_after, args=(barrier.wait, what, args), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        # One that hangs is ended with this process.
        assert process.exitcode == 0, f"{what.__name__}: exit codes {[p.exitcode for p in processes]}"


def _after(wait: Callable[..., int], what: Callable[..., Any], args: tuple[Any, ...]) -> None:
    wait(timeout=60)
    what(*args)
