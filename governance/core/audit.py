"""What an auditor checks, as pure functions: the hash chain of a session and the legality of an action's history."""

from collections.abc import Iterable, Iterator

from governance.core.actions import State, illegal_step
from governance.core.events import GENESIS, StoredEvent, chain_hash


def chain_problems(session_id: str, sealed: Iterable[StoredEvent]) -> Iterator[str]:
    """Gaps and broken hashes in a session's sealed events, given in order from number 1."""
    expected, previous = 1, GENESIS
    for event in sealed:
        if event.seq != expected:
            yield f"session {session_id}: event number {expected} is missing, found {event.seq}"
            expected = event.seq or expected
        wanted = chain_hash(previous, event, expected)
        if event.hash != wanted:
            yield f"session {session_id}: event {expected} does not match its hash, its content or order was changed"
        previous = event.hash or wanted
        expected += 1


def history_problems(action_id: str, history: Iterable[StoredEvent], state: State | None) -> Iterator[str]:
    """Illegal steps in an action's events, in order; `state` is the row's, None when there is no row."""
    current: State | None = None
    attempt = 0
    for event in history:
        if event.state is None:
            continue
        problem = illegal_step(event.kind, current, event.state)
        if problem is not None:
            yield f"action {action_id}: {problem} (event {event.id})"
        expected = attempt + 1 if event.kind == "action.admitted" else attempt
        if event.attempt != expected:
            yield (f"action {action_id}: {event.kind} names attempt {event.attempt}, not {expected} (event {event.id})")
        attempt = event.attempt if event.attempt is not None else expected
        current = event.state
    if state is None:
        yield f"action {action_id}: the trail speaks of it and the store has no such action"
    elif state is not current:
        yield f"action {action_id}: the store says {state}, its trail says {current}"
