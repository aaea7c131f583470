"""Which of several switches an action meets, and which it does not."""

import itertools

import pytest

from governance.core.switches import EVERYTHING, Mode, Scope, Subject, Switch, stopping

MINE = Subject(
    action_id="a-1",
    name="case.reply",
    model="small-model",
    sessions=frozenset({"desk@10", "desk@11"}),
    stream="desk",
    agent_id="agent-1",
    user="user-1",
    team="team-1",
    org="org-1",
)
BARE = Subject("a-2", "mail.send", None, frozenset({"default@10"}), "default", None, None, None, None)


def switch(scope: Scope, scope_id: str, mode: Mode = Mode.KILL, id_: str = "s-1") -> Switch:
    return Switch(id_, scope, scope_id, mode, "stop", 0, 1)


@pytest.mark.parametrize(
    ("scope", "its", "neighbours"),
    [
        (Scope.ACTION, ["a-1"], ["a-2", "a-", "a-11", "A-1", "*", "a-*"]),
        (Scope.SESSION, ["desk@10", "desk@11"], ["desk@12", "desk@1", "desk", "default@10", "*"]),
        (Scope.STREAM, ["desk"], ["desk2", "des", "Desk", "default", "*", "d*"]),
        (Scope.AGENT, ["agent-1"], ["agent-2", "agent-", "user-1", "*", ""]),
        (Scope.USER, ["user-1"], ["user-2", "agent-1", "*", ""]),
        (Scope.TEAM, ["team-1"], ["team-2", "org-1", "*"]),
        (Scope.ORG, ["org-1"], ["org-2", "team-1", "*"]),
        (
            Scope.NAME,
            ["case.reply", "case.*", "*.reply", "case.rep[lm]y", "*"],
            ["case.refund", "case", "CASE.*", "*.bulk"],
        ),
        (Scope.MODEL, ["small-model", "small-*", "Small-*", "*"], ["large-model", "small"]),
        (Scope.SYSTEM, [EVERYTHING], []),
    ],
)
def test_a_switch_covers_its_scope_and_not_its_neighbours(scope: Scope, its: list[str], neighbours: list[str]) -> None:
    assert [scope_id for scope_id in its if not switch(scope, scope_id).covers(MINE)] == []
    assert [scope_id for scope_id in neighbours if switch(scope, scope_id).covers(MINE)] == []


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope not in (Scope.SYSTEM, Scope.NAME)])
def test_who_has_none_of_it_is_in_no_such_scope(scope: Scope) -> None:
    for scope_id in ("agent-1", "None", "", "*", "?*"):
        assert not switch(scope, scope_id).covers(BARE)


def test_a_kill_counts_before_a_pause_however_narrow() -> None:
    pause, kill = switch(Scope.ACTION, "a-1", Mode.PAUSE, "p"), switch(Scope.SYSTEM, EVERYTHING, Mode.KILL, "k")
    assert stopping([pause, kill], MINE) == stopping([kill, pause], MINE) == kill
    assert stopping([pause], MINE) == pause


def test_among_equals_the_narrowest_is_named() -> None:
    covering = {
        Scope.ACTION: "a-1",
        Scope.SESSION: "desk@11",
        Scope.STREAM: "desk",
        Scope.AGENT: "agent-1",
        Scope.USER: "user-1",
        Scope.TEAM: "team-1",
        Scope.ORG: "org-1",
        Scope.NAME: "case.*",
        Scope.MODEL: "small-*",
        Scope.SYSTEM: EVERYTHING,
    }
    assert list(covering) == list(Scope)
    for mode in Mode:
        for narrow, wide in itertools.combinations(Scope, 2):
            # The ids say the opposite: they decide only in one scope.
            pair = [switch(narrow, covering[narrow], mode, "z"), switch(wide, covering[wide], mode, "a")]
            assert stopping(pair, MINE) == stopping(pair[::-1], MINE) == pair[0]
    globs = [switch(Scope.NAME, "*.reply", id_="b"), switch(Scope.NAME, "case.*", id_="a")]
    assert stopping(globs, MINE) == globs[1]


def test_a_switch_of_somebody_else_stops_nobody() -> None:
    others = [switch(Scope.STREAM, "other"), switch(Scope.AGENT, "agent-1"), switch(Scope.MODEL, "*")]
    assert stopping(others, BARE) is None
    assert stopping([], MINE) is None
    assert stopping(others, MINE) == others[1]


def test_a_refusal_names_the_switch_by_its_scope() -> None:
    assert switch(Scope.SYSTEM, EVERYTHING).rule == "switch:system"
    assert switch(Scope.NAME, "case.*").rule == "switch:name:case.*"
