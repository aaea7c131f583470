"""Every benchmark runs and prints what it promises; not how fast, but what must hold at any speed, is tested here."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.fleet import ROOT


def figures(module: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_governed_vs_raw(database: str) -> None:
    found = figures("governed_vs_raw", "--database", database, "--actions", "20", "--rounds", "1")
    assert found["database"] == database
    assert found["ratio"] > 0
    assert found["raw_per_s"] > 0
    assert found["governed_per_s"] > 0
    if database == "postgres":
        assert found["round_trips_per_action"] <= 5
    for step in ("submit", "admit", "finish"):
        assert 0 < found[f"{step}_p50_ms"] <= found[f"{step}_p95_ms"]


def test_cycle() -> None:
    found = figures("cycle", "--database", "sqlite", "--seconds", "0.2")
    assert found["database"] == "sqlite"
    assert found["cycles_per_s_1"] > 0
    assert found["cycles_per_s_2"] > 0


def test_scale_out() -> None:
    smallest = ("--actions", "16", "--rounds", "1", "--children", "2", "--database", "sqlite", "--bodies", "waiting")
    found = figures("scale_out", *smallest)
    assert found["children"] == 2
    assert found["waiting_ratio"] > 0
    # Two slots, 200 ms each: no more than 10/s.
    assert found["waiting_one_per_s"] <= 10


def test_hot_budget() -> None:
    found = figures("hot_budget", "--clients", "50", "--holds", "400")
    assert (found["clients"], found["stripes"]) == (50, 16)
    assert found["holds_per_s"] > 0
    assert 0 < found["hold_p50_ms"] <= found["hold_p99_ms"]
    assert found["overshoot"] == 0
    assert found["false_denials"] == 0


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_identity_budgets(database: str) -> None:
    found = figures("identity_budgets", "--database", database, "--rounds", "1", "--seconds", "0.2")
    assert found["budget_accounts"] == 12
    assert found["ratio"] > 0
    assert found["ratio_both_units"] > 0
    assert found["session_only_per_s"] > 0


def test_kill_switch() -> None:
    smallest = ("--rounds", "1", "--workers", "1", "--concurrency", "2", "--database", "sqlite")
    found = figures("kill_switch", *smallest)
    assert found["stopped"] == found["killed"] == 2
    assert found["new_starts"] == 0
    assert 0 < found["stop_p50_ms"] <= found["stop_p99_ms"] <= found["stop_max_ms"]
    assert found["killed_after_grace_max_ms"] >= 0


def test_backlog() -> None:
    found = figures("backlog", "--parked", "200")
    assert found["parked"] == 200
    assert found["swept"] == 100
    assert found["queue_length"] == 0
    for step in ("list", "scrape", "show", "approve", "approve_to_running"):
        assert 0 < found[f"{step}_p50_ms"] <= found[f"{step}_p95_ms"]


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_history(database: str) -> None:
    found = figures("history", "--database", database, "--actions", "300", "--rounds", "1", "--seconds", "0.2")
    assert found["events"] == 1506
    assert found["full_per_s"] > 0
    assert found["ratio"] > 0
    assert set(found["jobs"]) >= {"relay", "recovery", "sealing", "retention"}


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_recovery(database: str) -> None:
    found = figures("recovery", "--database", database, "--open", "300", "--lost", "40")
    assert found["reclaimed"] == 40
    assert found["problems"] == 0
    assert found["look_s"] < 5
