"""What an auditor checks, as pure functions: the hash chain of a session and the legality of an action's history.

A session's history may have been pruned up to an anchor: the chain of what is kept begins there, and the trail of the
fleet's own sessions says of every anchor that it was set.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from governance.core.actions import State, illegal_step
from governance.core.events import GENESIS, StoredEvent, chain_hash


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the pruned history of a session ends: the number and hash of its last event, to which the next is chained.

    `events` of them were pruned at `pruned_us`, as the trail of the session `recorded_in` says; they are all gone once
    it is `cleared`.
    """

    session_id: str
    seq: int
    hash: str
    events: int
    pruned_us: int
    recorded_in: str
    cleared: bool


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the trail says of an anchor: how many events it stands for, and the hash of the last one."""

    events: int
    hash: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """The state and attempt that an action's pruned history left it in."""

    state: State
    attempt: int


def chain_problems(session_id: str, sealed: Iterable[StoredEvent], anchor: Anchor | None = None) -> Iterator[str]:
    """Gaps and broken hashes in a session's sealed events, given in order from number 1, or from its anchor on."""
    expected, previous = (1, GENESIS) if anchor is None else (anchor.seq + 1, anchor.hash)
    for event in sealed:
        if event.seq != expected:
            yield f"session {session_id}: event number {expected} is missing, found {event.seq}"
            expected = event.seq or expected
        wanted = chain_hash(previous, event, expected)
        if event.hash != wanted:
            yield f"session {session_id}: event {expected} does not match its hash, its content or order was changed"
        previous = event.hash or wanted
        expected += 1


def remnant_problems(anchor: Anchor, remnant: Iterable[StoredEvent]) -> Iterator[str]:
    """What is wrong with events up to the anchor's: none are left when it is cleared, else a whole end of the chain."""
    first: StoredEvent | None = None
    last: StoredEvent | None = None
    for event in remnant:
        if first is None:
            first = event
        elif last is not None:
            behind = Anchor(anchor.session_id, last.seq or 0, last.hash or "", 0, 0, "", cleared=True)
            yield from chain_problems(anchor.session_id, [event], behind)
        last = event
    if first is None or last is None:
        return
    if anchor.cleared:
        yield f"session {anchor.session_id}: was pruned at event {anchor.seq} and has an event {first.seq}"
    elif (last.seq, last.hash) != (anchor.seq, anchor.hash):
        yield f"session {anchor.session_id}: its history does not end in its anchor, event {anchor.seq}"


def anchor_problems(
    anchors: Collection[Anchor], told: Mapping[tuple[str, int], Pruned], ends_us: Mapping[str, int]
) -> Iterator[str]:
    """Anchors that the trail does not speak of, unless that trail was pruned itself, and the other way round.

    `told` is what the trail says, by session and number; `ends_us` is when the window of every session ends.
    """
    known = {(anchor.session_id, anchor.seq): Pruned(anchor.events, anchor.hash) for anchor in anchors}
    pruned = {anchor.session_id for anchor in anchors}
    for anchor in anchors:
        said = told.get((anchor.session_id, anchor.seq))
        # What says so is of a later time than what was pruned, so nothing younger can hide behind it.
        gone = anchor.recorded_in in pruned and ends_us[anchor.recorded_in] > ends_us[anchor.session_id]
        if said is None and not gone:
            yield (
                f"session {anchor.session_id}: has an anchor at event {anchor.seq}, "
                f"and the trail of {anchor.recorded_in} does not say that it was pruned"
            )
        elif said is not None and said != known[anchor.session_id, anchor.seq]:
            yield f"session {anchor.session_id}: its anchor at event {anchor.seq} is not the one its pruning speaks of"
    for session_id, seq in told:
        if (session_id, seq) not in known:
            lost = "has no anchor" if session_id in ends_us else "is not there"
            yield f"session {session_id}: was pruned at event {seq} and {lost}"


def history_problems(
    action_id: str, history: Iterable[StoredEvent], state: State | None, beginning: Beginning | None = None
) -> Iterator[str]:
    """Illegal steps in an action's events, in order; `state` is the row's, None when there is no row.

    `beginning` is where the kept part of its history begins, None when that is all of it.
    """
    current, attempt = (None, 0) if beginning is None else (beginning.state, beginning.attempt)
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
