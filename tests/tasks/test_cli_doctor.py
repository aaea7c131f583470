"""`acp doctor` on several machines: connections, clocks, beats, the control queue, the broker's memory, time limits."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from governance.clock import SystemClock
from governance.operations import heartbeat
from governance.operations.context import Governance
from governance.operations.heartbeat import Post
from tests.support.governed import Desk, make_governance
from tests.support.terminal import Terminal

AGENTS = Post("one", ("celery",), 4)
CONTROL = Post("two", ("acp-control",), 2)
BOTH = Post("one", ("celery", "acp-control"), 4)


def checks(terminal: Terminal, **env: str) -> dict[str, dict[str, Any]]:
    ran = terminal.acp("doctor", "--json", **env)
    assert ran.code in (0, 5), ran.err
    return {check["name"]: check for check in ran.json["checks"]}


@pytest.fixture
def gov(terminal: Terminal) -> Iterator[Governance]:
    made = make_governance(f"sqlite:///{terminal.database}", clock=SystemClock())
    yield made
    made.store.close()


def test_a_fleet_without_beat_or_without_a_control_worker_is_not_ready(terminal: Terminal, gov: Governance) -> None:
    heartbeat.register(gov, "agents@one#1", 1, AGENTS)
    found = checks(terminal)
    assert (found["beat"]["status"], found["control queue"]["status"]) == ("fail", "fail")
    assert "celery -A acp_tasks beat" in found["beat"]["advice"]
    assert "-Q acp-control" in found["control queue"]["advice"]
    heartbeat.register(gov, "control@two#1", 1, CONTROL)
    for number in (1, 2):
        heartbeat.scheduler_alive(gov, f"beat@three#{number}", "three", number)
    found = checks(terminal)
    assert (found["beat"]["status"], found["control queue"]["status"]) == ("ok", "ok")
    assert found["beat"]["detail"].startswith("2 are alive, which is fine")
    assert "busy agents do not keep it waiting" in found["control queue"]["detail"]
    assert "connections" not in found


def test_workers_that_do_both_are_said_to(terminal: Terminal, gov: Governance) -> None:
    heartbeat.register(gov, "agents@one#1", 1, BOTH)
    found = checks(terminal)
    assert found["control queue"]["status"] == "ok"
    assert "beat's jobs wait" in found["control queue"]["detail"]


@pytest.mark.parametrize(("ahead_s", "status", "said"), [(2.0, "warn", "2."), (20.0, "fail", "20."), (0.0, "ok", "")])
def test_a_clock_that_is_ahead_is_seen_by_its_heartbeat(
    terminal: Terminal, gov: Governance, ahead_s: float, status: str, said: str
) -> None:
    heartbeat.register(gov, "agents@one#1", 1, BOTH)
    later_us = gov.clock.now_us() + gov.clock.span_us(ahead_s + 0.5 * bool(ahead_s))
    # Until the doctor has started, a part of that is over.
    gov.store.run("UPDATE workers SET heartbeat_us = :at", {"at": later_us + gov.clock.span_us(2.0 * bool(ahead_s))})
    found = checks(terminal)["clocks"]
    assert found["status"] == status, found
    assert ("agents@one#1" in found["detail"] and "ahead" in found["detail"]) == bool(said)


def test_a_clock_that_is_behind_is_told_from_a_worker_that_is_silent(terminal: Terminal, gov: Governance) -> None:
    """One worker's heartbeats come, seven seconds too old; another one's do not come."""
    for name in ("slow@one#1", "dead@two#1"):
        heartbeat.register(gov, name, 1, BOTH)
    behind_us = gov.clock.span_us(7.0)
    gov.store.run("UPDATE workers SET heartbeat_us = heartbeat_us - :by", {"by": behind_us})
    with beating(gov, "slow@one#1", behind_us):
        found = checks(terminal)["clocks"]
    assert found["status"] == "fail"
    assert "slow@one#1 is 7." in found["detail"].replace("6.9", "7.")
    assert "behind" in found["detail"]
    assert "dead@two#1" not in found["detail"]


@contextmanager
def beating(gov: Governance, worker_id: str, behind_us: int) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.3):
            gov.store.run(
                "UPDATE workers SET heartbeat_us = :at WHERE id = :id",
                {"at": gov.clock.now_us() - behind_us, "id": worker_id},
            )

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.postgres
def test_pools_times_processes_are_held_against_max_connections(terminal: Terminal, postgres_url: str) -> None:
    gov = make_governance(postgres_url, clock=SystemClock())
    try:
        with psycopg.connect(postgres_url) as connection:
            row = connection.execute("SHOW max_connections").fetchone()
            assert row is not None
            most = int(row[0])
        heartbeat.register(gov, "agents@one#1", 1, Post("one", ("celery",), 9))
        heartbeat.scheduler_alive(gov, "beat@one#1", "one", 2)
        url = {"ACP_DATABASE_URL": postgres_url}
        found = checks(terminal, **url, ACP_POOL_SIZE="2")
        assert (found["connections"]["status"], found["clocks"]["status"]) == ("ok", "ok")
        assert "the database server" in found["clocks"]["detail"]
        assert found["connections"]["detail"].startswith(
            "11 processes with 2 connections at most (ACP_POOL_SIZE) are 22"
        )
        assert checks(terminal, **url, ACP_POOL_SIZE="100")["connections"]["status"] == "warn"
        heartbeat.register(gov, "agents@two#1", 1, Post("two", ("celery",), most))
        crowded = checks(terminal, **url, ACP_POOL_SIZE="1")["connections"]
        assert crowded["status"] == "fail"
        assert "max_connections" in crowded["advice"]
    finally:
        gov.store.close()


def test_a_broker_that_forgets_is_named(terminal: Terminal, desk: Desk, broker_url: str) -> None:
    env = {"ACP_BROKER_URL": broker_url}
    found = checks(terminal, **env)
    assert (found["broker eviction"]["status"], found["broker persistence"]["status"]) == ("ok", "warn")
    with redis.Redis.from_url(broker_url) as client:
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert checks(terminal, **env)["broker eviction"]["status"] == "warn"
            client.config_set("maxmemory", "1gb")
            client.config_set("appendonly", "yes")
            found = checks(terminal, **env)
            assert (found["broker eviction"]["status"], found["broker persistence"]["status"]) == ("fail", "ok")
            assert "noeviction" in found["broker eviction"]["advice"]
            client.execute_command("ACL", "SETUSER", "plain", "on", ">plain", "~*", "&*", "+@all", "-config", "-info")
            asked = checks(terminal, ACP_BROKER_URL=broker_url.replace("redis://", "redis://plain:plain@"))
            assert (asked["broker eviction"]["status"], asked["broker persistence"]["status"]) == ("warn", "warn")
            assert "CONFIG GET" in asked["broker eviction"]["advice"]
        finally:
            client.execute_command("ACL", "DELUSER", "plain")
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "no")


def test_the_visibility_timeout_is_held_against_every_tasks_limit(terminal: Terminal, desk: Desk) -> None:
    (terminal.folder / "theirs.py").write_text(
        "from celery import Celery\n"
        'app = Celery("theirs", task_cls="acp_tasks:GovernedTask", broker="redis://127.0.0.1:1/0", '
        "set_as_current=False)\n"
        "app.conf.task_time_limit = 60\n"
        '@app.task(name="long", risk="low", time_limit=7200)\n'
        "def long(): ...\n"
    )
    ran = terminal.celery("-A", "theirs", "acp", "doctor", "--json")
    found = {check["name"]: check for check in ran.json["checks"]}
    assert found["visibility timeout"]["status"] == "fail"
    assert "7200 s, the longest (long)" in found["visibility timeout"]["detail"]
    ours = checks(terminal)["visibility timeout"]
    assert (ours["status"], "4200 s" in ours["detail"]) == ("ok", True)


def test_a_folder_of_another_release_is_pending(tmp_path: Path) -> None:
    found = checks(Terminal(tmp_path))
    assert found["database"]["status"] == "fail"
    assert "run `acp db upgrade`" in found["database"]["detail"]


def test_the_doctor_says_what_to_do(terminal: Terminal, desk: Desk) -> None:
    heartbeat.register(desk.gov, "celery@here#1", 4711)
    ran = terminal.acp("doctor", "--json")
    assert ran.code == 5
    found = {check["name"]: check for check in ran.json["checks"]}
    assert {name for name, check in found.items() if check["status"] == "fail"} == {"broker"}
    assert (found["beat"]["status"], found["control queue"]["status"]) == ("warn", "warn")
    assert "set ACP_BROKER_URL" in found["broker"]["advice"]
    assert found["workers"]["detail"].startswith("celery@here#1 heard of ")
    assert ran.json["settings"]["database_url"].endswith("cli.db")
    shown = terminal.acp("doctor")
    assert "FAIL  broker" in shown.out
    assert "hush" not in ran.out + shown.out


def test_the_doctor_goes_on_after_a_failure(terminal: Terminal) -> None:
    ran = terminal.acp("doctor", "--json", ACP_POLICY="absent.yaml", ACP_BROKER_URL="redis://:hush@127.0.0.1:1/0")
    status = {check["name"]: check["status"] for check in ran.json["checks"]}
    assert ran.code == 5
    assert (status["policy"], status["database"], status["broker"]) == ("fail", "fail", "fail")
    assert status["tasks"] == "ok"
    assert "hush" not in ran.out
