"""The audit trail: seal, replay, verify. The sealer runs on schedule; verification reads everything, in pages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from governance.core.audit import (
    Anchor,
    Pruned,
    anchor_problems,
    chain_problems,
    history_problems,
    remnant_problems,
)
from governance.core.events import StoredEvent
from governance.errors import NotFound
from governance.operations.context import Governance
from governance.store import action_reports, events, ledger, retention
from governance.store import sessions as store_sessions
from governance.store.engine import Reader

_SEAL_BATCH = 1000
_PAGE = 2000
_PROBLEMS_MAX = 1000
# What the trail calls the event that says where a session's history was cut.
PRUNED = "session.pruned"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read and what was wrong; `problems` is empty when the trail and the ledger hold.

    `anchors` are where the history of pruned sessions ends: what was before is gone, and was whole when it went.
    """

    events: int
    actions: int
    accounts: int
    problems: tuple[str, ...]
    anchors: tuple[Anchor, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def seal(gov: Governance) -> int:
    """Numbers and chains every event written so far; returns how many."""
    sealed = 0
    while sessions := events.unsealed_sessions(gov.store, 100):
        before = sealed
        for session_id in sessions:
            while count := events.seal(gov.store, session_id, _SEAL_BATCH):
                sealed += count
        if sealed == before:
            break
    return sealed


def replay(gov: Governance, session_id: str, after_seq: int = 0) -> Iterator[StoredEvent]:
    """The sealed events of a session, in order, from where its pruned history ends.

    Raises NotFound for a session that was never opened.
    """
    anchor = last_anchor(gov, session_id)
    yield from sealed_events(gov.store, session_id, max(after_seq, anchor.seq if anchor is not None else 0))


def last_anchor(gov: Governance, session_id: str) -> Anchor | None:
    """Where the pruned history of a session ends, None when none of it is pruned.

    Raises NotFound for a session that was never opened.
    """
    if store_sessions.find(gov.store, session_id) is None:
        raise NotFound("session", session_id, "acp budget show lists the open ones")
    found = retention.anchors(gov.store, session_id)
    return found[-1] if found else None


def verify(gov: Governance) -> Verification:
    """Seals what is open, then checks every chain, every account's sums and every action's history.

    All of it is read as of one moment, so a fleet at work is verified like one at rest.
    """
    seal(gov)
    with gov.store.snapshot() as reader:
        return _verified(reader)


def _verified(reader: Reader) -> Verification:
    problems: list[str] = []
    anchors = retention.anchors(reader)
    ends = {anchor.session_id: anchor for anchor in anchors}
    read = _Read()
    for session_id in events.sessions_with_events(reader):
        anchor = ends.get(session_id)
        if anchor is not None:
            problems += remnant_problems(anchor, up_to(anchor.seq, sealed_events(reader, session_id, 0)))
        after_seq = anchor.seq if anchor is not None else 0
        problems += chain_problems(session_id, read.noting(sealed_events(reader, session_id, after_seq)), anchor)
    ends_us = store_sessions.ends(reader)
    strangers = sorted(read.sessions - ends_us.keys())
    problems += [f"session {session_id}: has events and was never opened" for session_id in strangers]
    silent = events.silent_sessions(reader)
    problems += [f"session {session_id}: has neither events nor an anchor" for session_id in silent]
    problems += anchor_problems(anchors, read.told, ends_us)
    left = {anchor.session_id: anchor.seq for anchor in anchors if not anchor.cleared}
    histories = 0
    beginnings = retention.beginnings(reader)
    for action_id, state, whole in events.by_action(reader, _PAGE):
        history = [event for event in whole if event.seq is None or event.seq > left.get(event.session_id, 0)]
        if history:
            problems += history_problems(action_id, history, state, beginnings.get(action_id))
            histories += 1
    problems += [
        f"account {account}: held {held} and posted {posted}, its entries sum to {sum_held} and {sum_posted}"
        for account, held, sum_held, posted, sum_posted in ledger.unbalanced(reader)
    ]
    problems += [
        f"account {account}: {there} of {stripes} stripes are there, their shares sum to {shares} of {limit}"
        for account, there, stripes, limit, shares in ledger.unshared(reader)
    ]
    problems += [
        f"action {action_id}: attempt {attempt} holds {account} and does not run"
        for action_id, attempt, account in ledger.orphan_holds(reader)
    ]
    if unheard := action_reports.without_trail(reader):
        problems.append(f"{unheard} actions have no event at all")
    if len(problems) > _PROBLEMS_MAX:
        problems[_PROBLEMS_MAX:] = [f"and {len(problems) - _PROBLEMS_MAX} more"]
    return Verification(read.events, histories, ledger.account_count(reader), tuple(problems), tuple(anchors))


def sealed_events(reader: Reader, session_id: str, after_seq: int) -> Iterator[StoredEvent]:
    """Every sealed event of a session after a number, pruned or not, as it is stored."""
    while page := events.replay(reader, session_id, after_seq, _PAGE):
        yield from page
        after_seq = page[-1].seq or after_seq


def up_to(seq: int, sealed: Iterator[StoredEvent]) -> Iterator[StoredEvent]:
    """The first of these events, up to the number `seq`."""
    return takewhile(lambda event: event.seq is not None and event.seq <= seq, sealed)


class _Read:
    """How many events were read, of which sessions, and what they say of anchors."""

    def __init__(self) -> None:
        self.events = 0
        self.sessions: set[str] = set()
        self.told: dict[tuple[str, int], Pruned] = {}

    def noting(self, source: Iterator[StoredEvent]) -> Iterator[StoredEvent]:
        for event in source:
            self.events += 1
            self.sessions.add(event.session_id)
            if event.kind == PRUNED:
                said = json.loads(event.payload)
                self.told[said["session"], said["seq"]] = Pruned(said["events"], said["hash"])
            yield event
