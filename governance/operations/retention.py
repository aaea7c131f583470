"""Retention: whole sessions are pruned by age, and what is kept can still be verified.

A session goes when its window and everything in it is older than asked for and nothing in it goes on. Its books are
verified once more before; what does not agree is evidence and stays. An anchor takes its place, in one transaction with
an event in the fleet's own trail; then its rows are deleted in small steps, by this process or by a later one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from governance.core.audit import chain_problems
from governance.core.events import Event
from governance.core.instants import SECOND_US
from governance.core.principals import OPERATOR, Principal
from governance.errors import InvalidOption
from governance.faults import point
from governance.operations.archive import Archive
from governance.operations.audit import PRUNED, seal, sealed_events
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.principals import require
from governance.operations.sessions import in_force
from governance.store import aged_accounts, checkpoints, retention
from governance.store.engine import Store
from governance.store.retention import Aged

DAY_S: Final = 24 * 3600
# A process that is asleep for less than this must not wake up to a session that is gone.
OLDER_THAN_S_MIN: Final = 3600
_BATCH: Final = 2000


@dataclass(frozen=True, slots=True)
class PrunedSession:
    """A session whose history was pruned, or would be: so many events, and the last one's number and hash."""

    session_id: str
    events: int
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that is old enough and stays; `damaged` when its books do not agree."""

    session_id: str
    why: str
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """What one call pruned and kept of what is older than `cutoff_us`; not `finished`: the next call goes on.

    `accounts` are those of budgets whose entries went; `commands` and `ticks` are how many were forgotten.
    """

    cutoff_us: int
    pruned: tuple[PrunedSession, ...]
    kept: tuple[KeptSession, ...]
    accounts: int = 0
    commands: int = 0
    checkpoints: int = 0
    ticks: int = 0
    finished: bool = True


@dataclass(slots=True)
class _Allowance:
    """How many rows may still be deleted; None is any number."""

    rows: int | None

    @property
    def spent(self) -> bool:
        return self.rows is not None and self.rows <= 0

    def spend(self, rows: int) -> None:
        if self.rows is not None:
            self.rows -= rows


def prune(
    gov: Governance, *, older_than_s: int, by: Principal, reason: str, archive: Archive | None = None
) -> Retention:
    """Prunes everything that ended longer ago than that, to the end; what goes is written to `archive` before.

    Ages are of the fleet's clock. Raises NotAllowed, InvalidOption.
    """
    require(by, OPERATOR)
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail: why this history may go")
    return _prune(gov, _cutoff_us(gov, older_than_s), by.actor, reason, _Allowance(None), archive)


def prune_aged(gov: Governance, keep_days: int, rows_max: int) -> Retention | None:
    """What beat drives: about `rows_max` rows of what is older than that; None when all is kept for ever, 0 days."""
    if keep_days == 0:
        return None
    cutoff_us = _cutoff_us(gov, keep_days * DAY_S)
    return _prune(gov, cutoff_us, "retention", f"older than {keep_days} days", _Allowance(rows_max), None)


def plan(gov: Governance, *, older_than_s: int) -> Retention:
    """What `prune` would do now. Raises InvalidOption."""
    cutoff_us = _cutoff_us(gov, older_than_s)
    seal(gov)
    pruned: list[PrunedSession] = []
    kept: list[KeptSession] = []
    for session in retention.aged(gov.store, cutoff_us):
        found = _examined(gov, session, cutoff_us, {one.session_id for one in pruned})
        if isinstance(found, KeptSession):
            kept.append(found)
        else:
            pruned.append(found)
    return Retention(cutoff_us, tuple(pruned), tuple(kept))


def _cutoff_us(gov: Governance, older_than_s: int) -> int:
    if older_than_s < OLDER_THAN_S_MIN:
        raise InvalidOption("older-than", f"{older_than_s}s", "1h or more")
    return gov.clock.now_us() - older_than_s * SECOND_US


def _prune(
    gov: Governance, cutoff_us: int, actor: str, reason: str, allowance: _Allowance, archive: Archive | None
) -> Retention:
    seal(gov)
    for anchor in retention.uncleared(gov.store):
        _clear(gov, anchor.session_id, anchor.seq, allowance)
    pruned: list[PrunedSession] = []
    kept: list[KeptSession] = []
    for session in retention.aged(gov.store, cutoff_us):
        if allowance.spent:
            break
        found = _examined(gov, session, cutoff_us, set())
        if isinstance(found, PrunedSession):
            if archive is not None:
                archive.write(sealed_events(gov.store, session.session_id, session.after_seq), session.seq)
            if _anchored(gov, session, cutoff_us, actor, reason):
                _clear(gov, session.session_id, session.seq, allowance)
                pruned.append(found)
                continue
            found = KeptSession(session.session_id, "it moved while it was looked at")
        kept.append(found)
    accounts = _sum_up(gov, cutoff_us, actor, reason, allowance)
    commands = _forget(retention.prune_commands, gov, cutoff_us, allowance)
    points = _forget(checkpoints.forget, gov, cutoff_us, allowance)
    ticks = retention.prune_ticks(gov.store, cutoff_us)
    forgotten = (accounts, commands, points, ticks)
    return Retention(cutoff_us, tuple(pruned), tuple(kept), *forgotten, finished=not allowance.spent)


def _forget(step: Callable[[Store, int, int], int], gov: Governance, cutoff_us: int, allowance: _Allowance) -> int:
    """Step after step, until one forgets nothing or nothing more may be deleted; how many rows."""
    forgotten = 0
    while not allowance.spent and (rows := step(gov.store, cutoff_us, _BATCH)):
        forgotten += rows
        allowance.spend(rows)
    return forgotten


def _sum_up(gov: Governance, cutoff_us: int, actor: str, reason: str, allowance: _Allowance) -> int:
    """Lets go of the entries of budgets' accounts; what does not agree is evidence and stays. How many accounts."""
    summed_up = 0
    for listed, sum_up in ((aged_accounts.listed, aged_accounts.sum_up), (aged_accounts.endless, _until(cutoff_us))):
        after = ""
        while not allowance.spent and (page := listed(gov.store, cutoff_us, after=after, limit=_BATCH)):
            after = page[-1]
            for account_id in page:
                now_us = gov.clock.now_us()
                session = in_force(gov, CONTROL_STREAM, now_us).session
                said = {"account": account_id, "reason": reason, "cutoff_us": cutoff_us}
                event = Event(session.id, "budget.summed_up", actor, now_us, payload=said)
                summed_up += sum_up(gov.store, account_id, event)
            allowance.spend(len(page))
    while not allowance.spent and (deleted := aged_accounts.clear_summed_up(gov.store, _BATCH)):
        allowance.spend(deleted)
    for row, until_us in [] if allowance.spent else aged_accounts.summing(gov.store):
        while not allowance.spent and (deleted := aged_accounts.clear_closed(gov.store, row, until_us, _BATCH)):
            allowance.spend(deleted)
    return summed_up


def _until(cutoff_us: int) -> Callable[[Store, str, Event], bool]:
    return lambda store, row, event: aged_accounts.sum_up_until(store, row, cutoff_us, event)


def _examined(gov: Governance, session: Aged, cutoff_us: int, going: set[str]) -> PrunedSession | KeptSession:
    """Whether a session may go; `going` are the sessions that go with it."""
    with gov.store.statement() as connection:
        why = retention.in_the_way(connection, session, cutoff_us)
        if why is None:
            earlier = [one for one in retention.earlier(connection, session) if one not in going]
            why = f"its actions began in {earlier[0]}, which is kept" if earlier else None
        if why is not None:
            return KeptSession(session.session_id, why)
        damage = retention.wrong(connection, session)
    if damage is None:
        damage = _broken(gov, session)
    if damage is not None:
        return KeptSession(session.session_id, damage, damaged=True)
    return PrunedSession(session.session_id, session.events, session.seq, session.hash)


def _broken(gov: Governance, session: Aged) -> str | None:
    """The first thing that is wrong with a session's chain."""
    before = retention.anchors(gov.store, session.session_id)
    sealed = sealed_events(gov.store, session.session_id, session.after_seq)
    return next(chain_problems(session.session_id, sealed, before[-1] if before else None), None)


def _anchored(gov: Governance, session: Aged, cutoff_us: int, actor: str, reason: str) -> bool:
    now_us = gov.clock.now_us()
    event = Event(
        session_id=in_force(gov, CONTROL_STREAM, now_us).session.id,
        kind=PRUNED,
        actor=actor,
        at_us=now_us,
        payload={
            "session": session.session_id,
            "events": session.events,
            "seq": session.seq,
            "hash": session.hash,
            "reason": reason,
            "cutoff_us": cutoff_us,
        },
    )
    return retention.anchor(gov.store, session, cutoff_us, event)


def _clear(gov: Governance, session_id: str, seq: int, allowance: _Allowance) -> None:
    while not allowance.spent:
        deleted = retention.clear(gov.store, session_id, seq, _BATCH, gov.clock.now_us())
        if not deleted:
            return
        point("after_first_of_pruned")
        allowance.spend(deleted)
