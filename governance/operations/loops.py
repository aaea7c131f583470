"""Agent loops: whether the chain of a loop's cycles is broken, and what it goes on from."""

from dataclasses import dataclass

from governance.core.switches import Subject, stopping
from governance.operations.checkpoints import SavedPoint, last_state
from governance.operations.context import Governance
from governance.operations.sessions import in_force
from governance.operations.switches import board_now
from governance.store import actions, sweeps


@dataclass(frozen=True, slots=True)
class Broken:
    """No cycle of a loop is under way. `asked` counts the cycles that were asked for since its checkpoint."""

    point: SavedPoint
    asked: int


def broken(gov: Governance, stream: str, name: str, agent_id: str, rest_us: int) -> Broken | None:
    """None while a cycle is queued, runs or waits, and for a loop that was never started.

    Also while a switch would stop it, and until `rest_us` after the last cycle was asked for.
    """
    point = last_state(gov, stream)
    if point is None or point.cycle is None or sweeps.any_open(gov.store, stream, name):
        return None
    now_us = gov.clock.now_us()
    asked, last_us = sweeps.made_since(gov.store, stream, name, point.made_us)
    if last_us is not None and now_us - last_us < rest_us:
        return None
    session = in_force(gov, stream, now_us).session.id
    subject = Subject(
        action_id="",
        name=name,
        model=None,
        sessions=frozenset({session}),
        stream=stream,
        agent_id=agent_id,
        user=None,
        team=None,
        org=None,
    )
    return None if stopping(board_now(gov).engaged, subject) is not None else Broken(point, asked)


def asked(gov: Governance, command_id: str) -> str:
    """The action that a command_id made."""
    found = actions.find_by_command(gov.store, command_id, "")
    assert found is not None, "it was in conflict with it"
    return found.ref.id
