"""An hour, lived through faster than the world: by `acp run`, and by the example's agent."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acp_tasks.agents.horizons import HORIZONS, STREAM, find_horizon, write_policy
from acp_tasks.fleet.lived import Lived, problems
from acp_tasks.fleet.rehearsal import settings_for
from governance.core.drills import Kind
from governance.core.rollups import HOUR_US
from governance.core.trends import Span
from governance.errors import InvalidOption
from governance.operations.audit import Verification
from governance.operations.rollups import Trend
from governance.policy_file import load_policy, packaged_policy
from tests.support.fleet import ROOT

HOUR = HORIZONS["hour"]


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACP_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.fleet
def test_an_hour_in_8_seconds_proves_its_cycles_sessions_checkpoints_and_books(tmp_path: Path) -> None:
    ran = python(tmp_path, "-m", "acp_tasks.cli", "run", "--horizon", "hour", "--compress", "480", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lived: dict[str, Any] = json.loads(ran.stdout)
    assert (lived["ok"], lived["problems"], lived["cycles"]) == (True, [], HOUR.cycles)
    # The fleet's clock starts anywhere in an hour, and goes on while a slow machine takes longer than that hour.
    hours = math.ceil(lived["duration_s"] * lived["compress"] / 3600)
    assert 1 <= lived["sessions"] <= hours + 1
    assert lived["checkpoints"] >= HOUR.cycles // HOUR.checkpoint_every
    assert lived["audit"]["ok"] is True
    # Each cycle is an action that succeeds, and asks for cases that are answered, parked or denied.
    assert lived["actions"]["succeeded"] > HOUR.cycles
    assert lived["actions"]["denied"] > 0
    assert lived["effects"] == lived["actions"]["succeeded"] - HOUR.cycles
    folder = Path(lived["state_dir"])
    assert folder.parent == tmp_path / ".acp"
    commands = [json.loads(line)["command_id"] for line in (folder / "outbox.jsonl").read_text().splitlines()]
    assert len(commands) == len(set(commands)) == lived["effects"]


@pytest.mark.fleet
def test_the_example_lives_through_an_hour_and_is_shorter_than_60_lines(tmp_path: Path) -> None:
    example = ROOT / "examples" / "long_running_autonomous_agent.py"
    assert len(example.read_text().splitlines()) < 60
    ran = python(tmp_path, str(example), "--horizon", "hour", "--compress", "480")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # A cycle and a note each, and what a person would look at.
    assert "0 problems" in ran.stdout
    assert f", {2 * HOUR.cycles} actions, " in ran.stdout
    saved = [line.split() for line in ran.stdout.splitlines() if " agent.cycle " in line]
    assert [int(line[4]) for line in saved] == [12, 8, 4, 0]


def test_a_horizon_gives_the_desk_its_window_and_budget_and_leaves_the_rules(tmp_path: Path) -> None:
    given = packaged_policy()
    path = tmp_path / "policy.yaml"
    write_policy(HORIZONS["day"], given, path)
    made = load_policy(path)
    stream = made.streams[STREAM]
    assert stream.window.length_us == 4 * HOUR_US
    rules = tmp_path / "given.yaml"
    rules.write_text(given)
    assert [rule.id for rule in made.rules] == [rule.id for rule in load_policy(rules).rules]


@pytest.mark.parametrize(
    ("name", "cycles", "sessions", "database", "workers"),
    [
        ("hour", 12, 1, "sqlite", 2),
        ("day", 48, 6, "sqlite", 2),
        ("week", 168, 7, "postgres", 3),
        ("month", 720, 30, "postgres", 3),
    ],
)
def test_the_cadences(name: str, cycles: int, sessions: int, database: str, workers: int) -> None:
    horizon = find_horizon(name)
    assert (horizon.cycles, horizon.sessions, horizon.database, horizon.workers) == (
        cycles,
        sessions,
        database,
        workers,
    )
    assert 12 <= horizon.checkpoint_every <= 24


def test_a_rehearsal_scales_the_one_clock_and_what_is_set_in_real_seconds() -> None:
    month = HORIZONS["month"]
    real, fast = settings_for(month, 1, 5), settings_for(month, 3600, 5)
    assert "ACP_TIME_SCALE" not in real
    assert (fast["ACP_TIME_SCALE"], fast["ACP_TIME_ORIGIN_US"]) == ("3600", "5")
    assert float(real["ACP_CHECKPOINT_EVERY_S"]) == 24 * 3600
    assert float(fast["ACP_CHECKPOINT_EVERY_S"]) == 24
    assert float(fast["ACP_DRILL_EVERY_S"]) < 720 / 2


def lived(**changes: Any) -> Lived:
    """A month that went well, a second for an hour; with what is changed."""
    whole = Lived(
        horizon=HORIZONS["month"],
        compress=3600,
        cycles=720,
        sessions=31,
        closed=29,
        checkpoints=61,
        drills={"passed": 9, "failed": 0, "running": 1},
        drilled=tuple(Kind),
        actions={"succeeded": 1000, "denied": 100, "parked": 1},
        timed_out=20,
        effects=280,
        audit=Verification(events=9000, actions=1100, accounts=200, problems=()),
        scorecard=Trend(Span.MONTH, None, 0, 720 * HOUR_US, 24, 30, ()),
        duration_s=750,
        state_dir=Path("rehearsal"),
    )
    return replace(whole, **changes)


def test_a_month_that_went_well_lacks_nothing() -> None:
    assert problems(lived()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cycles": 719}, "719 of 720 cycles are over"),
        ({"sessions": 29, "closed": 27}, "29 sessions, expected at least 30"),
        ({"closed": 27}, "27 of 31 sessions are closed"),
        ({"checkpoints": 29}, "29 checkpoints, expected 30"),
        ({"drills": {"passed": 8, "failed": 1, "running": 0}}, "1 drills failed: acp drill list"),
        ({"drilled": (Kind.KILL, Kind.RECOVERY)}, "no approval-backlog drill passed"),
        ({"actions": {"succeeded": 1, "failed": 2}}, "2 actions are failed"),
        ({"actions": {"succeeded": 1, "in_doubt": 3}}, "3 actions are in_doubt"),
        ({"scorecard": None}, "scorecards are all hours behind: acp scorecard show"),
        ({"audit": Verification(1, 1, 1, ("account a: posted 1, its entries sum to 2",))}, "account a: posted 1"),
    ],
)
def test_what_a_month_lacks_is_named_and_fails_it(changes: dict[str, Any], said: str) -> None:
    (problem,) = problems(lived(**changes))
    assert problem.startswith(said)


def test_an_hour_is_too_short_for_drills_and_scorecards() -> None:
    short = {"sessions": 1, "closed": 0, "checkpoints": 1, "cycles": 12, "drilled": (), "scorecard": None}
    assert problems(lived(horizon=HOUR, compress=60, **short)) == []


def test_an_unknown_horizon_is_named() -> None:
    with pytest.raises(InvalidOption, match="hour, day, week, month"):
        find_horizon("year")
