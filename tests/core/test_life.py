"""The table of legal steps, and an auditor that goes by it."""

import itertools

import pytest

from governance.core.actions import EDGES, TERMINAL, State, illegal_step
from governance.core.audit import chain_problems, history_problems
from governance.core.events import GENESIS, StoredEvent, chain_hash


def test_nothing_leaves_a_terminal_state() -> None:
    left = {before for edges in EDGES.values() for before, _ in edges}
    assert not left & TERMINAL


def test_every_state_can_be_entered_and_every_live_one_left() -> None:
    edges = [edge for edges in EDGES.values() for edge in edges]
    assert {after for _, after in edges} == set(State)
    assert {before for before, _ in edges if before} == set(State) - TERMINAL


@pytest.mark.parametrize("kind", sorted(EDGES))
def test_a_step_is_legal_exactly_when_the_table_has_it(kind: str) -> None:
    for before, after in itertools.product([None, *State], State):
        assert (illegal_step(kind, before, after) is None) == ((before, after) in EDGES[kind])


def test_an_unknown_kind_is_no_step() -> None:
    assert illegal_step("action.vanished", State.RUNNING, State.FAILED) == "action.vanished is not a transition"


def event(number: int, kind: str, state: State | None, attempt: int = 0, **changes: object) -> StoredEvent:
    content = {
        "id": number,
        "session_id": "s",
        "kind": kind,
        "actor": "test",
        "at_us": 1,
        "action_id": "a",
        "attempt": attempt,
        "state": state,
        "payload": "{}",
        "seq": number,
        "hash": None,
        **changes,
    }
    return StoredEvent(**content)  # type: ignore[arg-type]


LIFE = [
    event(1, "action.submitted", State.QUEUED),
    event(2, "action.admitted", State.RUNNING, 1),
    event(3, "action.reclaimed", State.QUEUED, 1),
    event(4, "action.admitted", State.RUNNING, 2),
    event(5, "agent.note", None, 2),
    event(6, "action.succeeded", State.SUCCEEDED, 2),
]


def test_a_legal_life_has_no_problems() -> None:
    assert list(history_problems("a", LIFE, State.SUCCEEDED)) == []


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_life_with_a_step_missing_has_problems(missing: int) -> None:
    assert list(history_problems("a", LIFE[:missing] + LIFE[missing + 1 :], State.SUCCEEDED))


def test_a_row_that_disagrees_with_its_trail_is_a_problem() -> None:
    assert list(history_problems("a", LIFE, State.FAILED)) == [
        "action a: the store says failed, its trail says succeeded"
    ]
    assert "the store has no such action" in next(history_problems("a", LIFE, None))


def chained(events: list[StoredEvent]) -> list[StoredEvent]:
    previous, sealed = GENESIS, []
    for number, each in enumerate(events, start=1):
        previous = chain_hash(previous, each, number)
        sealed.append(event(each.id, each.kind, each.state, each.attempt or 0, seq=number, hash=previous))
    return sealed


def test_an_untouched_chain_holds_and_every_change_breaks_it() -> None:
    sealed = chained(LIFE)
    assert list(chain_problems("s", sealed)) == []
    for index in range(len(sealed) - 1):
        assert list(chain_problems("s", sealed[:index] + sealed[index + 1 :])), f"event {index} removed"
        swapped = [*sealed]
        swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
        assert list(chain_problems("s", swapped)), f"events {index} and {index + 1} swapped"
    for field, value in (("payload", '{"x":1}'), ("actor", "mallory"), ("at_us", 2), ("state", State.FAILED)):
        changed = [*sealed]
        whole = {name: getattr(sealed[3], name) for name in StoredEvent.__slots__}
        changed[3] = StoredEvent(**{**whole, field: value})
        assert list(chain_problems("s", changed)), f"{field} changed"
