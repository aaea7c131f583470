"""The audit trail: seal, replay, verify. The sealer runs on schedule; verification reads everything, in pages."""

from collections.abc import Iterator
from dataclasses import dataclass

from governance.core.audit import chain_problems, history_problems
from governance.core.events import StoredEvent
from governance.errors import NotFound
from governance.operations.context import Governance
from governance.store import actions, events, ledger
from governance.store import sessions as store_sessions
from governance.store.engine import Reader

_SEAL_BATCH = 1000
_PAGE = 2000
_PROBLEMS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read and what was wrong; `problems` is empty when the trail and the ledger hold."""

    events: int
    actions: int
    accounts: int
    problems: tuple[str, ...]

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
    """The sealed events of a session, in order. Raises NotFound for a session that was never opened."""
    if store_sessions.find(gov.store, session_id) is None:
        raise NotFound("session", session_id, "acp budget show lists the open ones")
    yield from _sealed(gov.store, session_id, after_seq)


def verify(gov: Governance) -> Verification:
    """Seals what is open, then checks every chain, every account's sums and every action's history.

    All of it is read as of one moment, so a fleet at work is verified like one at rest.
    """
    seal(gov)
    with gov.store.snapshot() as reader:
        return _verified(reader)


def _verified(reader: Reader) -> Verification:
    problems: list[str] = []
    read = 0
    for session_id in events.sessions_with_events(reader):
        counted = _Counted(_sealed(reader, session_id, 0))
        problems += chain_problems(session_id, counted)
        read += counted.count
    histories = 0
    for action_id, state, history in events.by_action(reader, _PAGE):
        problems += history_problems(action_id, history, state)
        histories += 1
    problems += [
        f"account {account}: held {held} and posted {posted}, its entries sum to {sum_held} and {sum_posted}"
        for account, held, sum_held, posted, sum_posted in ledger.unbalanced(reader)
    ]
    problems += [
        f"action {action_id}: attempt {attempt} holds {account} and does not run"
        for action_id, attempt, account in ledger.orphan_holds(reader)
    ]
    silent = sum(actions.counts_by_state(reader).values()) - histories
    if silent:
        problems.append(f"{silent} actions have no event at all")
    if len(problems) > _PROBLEMS_MAX:
        problems[_PROBLEMS_MAX:] = [f"and {len(problems) - _PROBLEMS_MAX} more"]
    return Verification(read, histories, ledger.account_count(reader), tuple(problems))


def _sealed(reader: Reader, session_id: str, after_seq: int) -> Iterator[StoredEvent]:
    while page := events.replay(reader, session_id, after_seq, _PAGE):
        yield from page
        after_seq = page[-1].seq or after_seq


class _Counted:
    """An iterable that knows how many it gave out."""

    def __init__(self, source: Iterator[StoredEvent]) -> None:
        self.source = source
        self.count = 0

    def __iter__(self) -> Iterator[StoredEvent]:
        for item in self.source:
            self.count += 1
            yield item
