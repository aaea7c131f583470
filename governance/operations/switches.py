"""The kill switch in use: engage, cancel what waits, release, and resume what was paused.

The row is the truth. An admission decides at an epoch and is written only at the same one, so that from the commit of
a switch on nothing in its scope starts, whatever was told to whom. Everything after that commit only clears up.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping

from governance.core.actions import State
from governance.core.board import Board
from governance.core.budgets import Payer
from governance.core.events import Event
from governance.core.principals import Principal
from governance.core.switches import EVERYTHING, Mode, Scope, Subject, Switch, stopping
from governance.errors import InvalidOption
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.principals import require
from governance.operations.sessions import in_force
from governance.store import events, sweeps, switches
from governance.store import sessions as store_sessions
from governance.store.action_rows import ActionRow

GRACE_S: Final = 10.0
_BATCH: Final = 500
_WAITING: Final = (State.QUEUED, State.PARKED, State.DEFERRED)


@dataclass(frozen=True, slots=True)
class Engaged:
    """An engaged switch; `repeated` when it was engaged before, and then with its first reason and grace."""

    switch: Switch
    repeated: bool


@dataclass(frozen=True, slots=True)
class RunningAction:
    """An attempt that a switch has to stop."""

    action_id: str
    attempt: int
    name: str
    worker_id: str
    child: str

    @property
    def key(self) -> tuple[str, int]:
        return self.action_id, self.attempt


@dataclass(frozen=True, slots=True)
class Stopping:
    """An attempt that a kill switch stops: `switch`, the first of all those that cover it (`covering`)."""

    run: RunningAction
    switch: Switch
    covering: tuple[Switch, ...]


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The state that an attempt left its action in, and when."""

    state: State
    at_us: int


def engage(
    gov: Governance,
    scope: Scope,
    scope_id: str,
    *,
    mode: Mode,
    reason: str,
    by: Principal,
    grace_s: float = GRACE_S,
) -> Engaged:
    """Stops (`kill`) or holds up (`pause`) everything in scope, from the moment this returns.

    Engaging again answers with the first engagement. Raises InvalidOption, NotAllowed, StoreUnavailable.
    """
    require(by, "operator")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail and for whoever meets the switch")
    if not scope_id or (scope is Scope.SYSTEM) != (scope_id == EVERYTHING):
        raise InvalidOption(str(scope), scope_id, "the id of what is to be stopped")
    if not 0 <= grace_s <= 3600:
        raise InvalidOption("grace", grace_s, "0 to 3600 seconds")
    engaged = _engage(gov, scope, scope_id, mode, reason, by.actor, grace_s)
    assert engaged is not None, "at whatever epoch"
    return engaged


def engage_by_budget(
    gov: Governance, scope: Scope, scope_id: str, rule: str, reason: str, told: Event, epoch: int
) -> Engaged | None:
    """A used-up budget (`on_exhausted: stop`) engages the switch of its own scope; `told` says how it stood.

    None at another epoch than it was looked at: it may have been raised since.
    """
    return _engage(gov, scope, scope_id, Mode.KILL, f"{rule}: {reason}", "governance", GRACE_S, told, epoch)


def switch_of_budget(
    gov: Governance, scope: Scope, scope_id: str, rule: str, reason: str, now_us: int, session_id: str
) -> tuple[Switch, Event]:
    """What `engage_by_budget` engages, and its event in `session_id`: for a transaction of the caller's own."""
    switch = _switch(gov, scope, scope_id, Mode.KILL, f"{rule}: {reason}", GRACE_S, now_us)
    return switch, _engaged_event(switch, "governance", session_id)


def engaged_in(gov: Governance, scope: Scope, scope_id: str) -> list[str]:
    """The ids of the engaged switches of exactly this scope."""
    return [row["id"] for row in switches.engaged_in(gov.store, scope, scope_id)]


def board_now(gov: Governance) -> Board:
    return board_at(gov, switches.epoch(gov.store))


def board_at(gov: Governance, epoch: int) -> Board:
    """The board of `epoch`, or of a later one. What is kept in memory of sessions holds for one epoch, too."""
    board = board_seen(gov)
    if board is None or board.epoch != epoch:
        gov.sessions.clear()
        gov.charges.clear()
        gov.payers.clear()
        gov.accounts.clear()
        board = switches.board(gov.store)
        gov.boards[:] = [board]
    return board


def board_seen(gov: Governance) -> Board | None:
    """The latest board that this process has seen, without looking."""
    return gov.boards[0] if gov.boards else None


def subject_of(action: ActionRow, session_id: str | None = None) -> Subject:
    """What of an action a switch looks at; `session_id` is the session it would run in."""
    return Subject(
        action_id=action.ref.id,
        name=action.name,
        model=action.model,
        sessions=frozenset({action.ref.session_id, session_id or action.ref.session_id}),
        stream=action.stream,
        agent_id=action.agent_id,
        user=action.user,
        team=action.team,
        org=action.org,
    )


def payer_of(action: ActionRow) -> Payer:
    """The identity that an action is charged to, as it is recorded."""
    return Payer.of(action.identity, action.agent_id, action.stream)


def running_in(gov: Governance, switch: Switch) -> list[RunningAction]:
    """Every attempt in scope that runs now."""
    where, values = switches.in_scope(gov.store, switch)
    found = sweeps.running_where(gov.store, where, values)
    return [
        RunningAction(
            action.ref.id, action.ref.attempt, action.name, action.lease_worker or "", action.lease_child or ""
        )
        for action in found
        if switch.covers(subject_of(action))
    ]


def end_of(gov: Governance, run: RunningAction) -> AttemptEnd | None:
    """How an attempt ended; None while it runs."""
    found = events.end_of_attempt(gov.store, run.action_id, run.attempt)
    return AttemptEnd(*found) if found is not None else None


def killing(gov: Governance, action: ActionRow) -> Switch | None:
    """The kill switch that covers an action now."""
    switch = stopping(board_now(gov).engaged, subject_of(action))
    return switch if switch is not None and switch.mode is Mode.KILL else None


def to_stop(gov: Governance, worker_id: str) -> list[Stopping]:
    """The attempts that one worker runs and a kill switch covers."""
    kills = [switch for switch in board_now(gov).engaged if switch.mode is Mode.KILL]
    found = []
    for action in sweeps.leases_of(gov.store, worker_id) if kills else ():
        subject = subject_of(action)
        switch = stopping(kills, subject)
        if switch is not None:
            run = RunningAction(action.ref.id, action.ref.attempt, action.name, worker_id, action.lease_child or "")
            found.append(Stopping(run, switch, tuple(one for one in kills if one.covers(subject))))
    return found


def _engage(
    gov: Governance,
    scope: Scope,
    scope_id: str,
    mode: Mode,
    reason: str,
    actor: str,
    grace_s: float,
    told: Event | None = None,
    epoch: int | None = None,
) -> Engaged | None:
    now_us = gov.clock.now_us()
    switch = _switch(gov, scope, scope_id, mode, reason, grace_s, now_us)
    event = _engaged_event(switch, actor, _trail_of(gov, now_us, scope, scope_id))
    engaged_id = switches.engage(gov.store, switch, by=actor, event=event, also=told, epoch=epoch)
    if engaged_id is None:
        return None
    if engaged_id == switch.id:
        return Engaged(switch, repeated=False)
    first = switches.find(gov.store, engaged_id)
    assert first is not None, "a switch is never deleted"
    return Engaged(read_switch(first), repeated=True)


def _switch(
    gov: Governance, scope: Scope, scope_id: str, mode: Mode, reason: str, grace_s: float, now_us: int
) -> Switch:
    return Switch(gov.new_id(), scope, scope_id, mode, reason, gov.clock.span_us(grace_s), now_us)


def _engaged_event(switch: Switch, actor: str, session_id: str) -> Event:
    payload = {
        "scope": str(switch.scope),
        "scope_id": switch.scope_id,
        "switch": switch.id,
        "mode": str(switch.mode),
        "reason": switch.reason,
        "grace_us": switch.grace_us,
    }
    return Event(session_id, "switch.engaged", actor, switch.engaged_us, payload=payload)


def read_switch(row: RowMapping) -> Switch:
    return Switch(
        row["id"],
        Scope(row["scope"]),
        row["scope_id"],
        Mode(row["mode"]),
        row["reason"],
        row["grace_us"],
        row["engaged_us"],
    )


def switch_event(
    gov: Governance, kind: str, actor: str, now_us: int, scope: Scope, scope_id: str, *, closed: bool = False
) -> Event:
    """What the trail says of a switch."""
    session_id = _trail_of(gov, now_us, scope, scope_id, closed=closed)
    return Event(session_id, kind, actor, now_us, payload={"scope": str(scope), "scope_id": scope_id})


def _trail_of(gov: Governance, now_us: int, scope: Scope, scope_id: str, *, closed: bool = False) -> str:
    """The session that it is about, unless that is closed; else the fleet's own."""
    known = scope is Scope.SESSION and not closed and store_sessions.find(gov.store, scope_id) is not None
    return scope_id if known else in_force(gov, CONTROL_STREAM, now_us).session.id


def with_more(event: Event, **more: object) -> Event:
    return Event(event.session_id, event.kind, event.actor, event.at_us, payload={**event.payload, **more})
