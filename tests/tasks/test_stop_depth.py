"""A kill switch where it is hard: what was killed stays dead, cleanups are let be, calls inside calls, two graces."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks import offspring
from acp_tasks.stop import StopReport, stop
from governance.core.switches import EVERYTHING, Mode, Scope, Switch
from governance.errors import ActionCancelled
from governance.operations import audit, clearing, switches
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, postgres_url, broker_address)
    try:
        shop.beat()
        shop.worker(concurrency=2).ready()
        yield shop
    finally:
        shop.close()


def halt(shop: Shop, scope: Scope, scope_id: str, grace_s: float, *, wait: bool = True) -> StopReport:
    return stop(
        shop.tasks.app, shop.gov, scope, scope_id, mode=Mode.KILL, reason="no", by=ANN, grace_s=grace_s, wait=wait
    )


def begun(shop: Shop, action_id: str) -> None:
    eventually(lambda: any(line.startswith(f"started {action_id}") for line in shop.effects()), "the body began")


def test_what_was_killed_does_not_run_again_after_the_release(shop: Shop) -> None:
    sent = shop.lasting.deaf.delay(str(shop.folder))
    begun(shop, sent.id)
    report = halt(shop, Scope.ACTION, sent.id, 0.3)
    assert [one.state for one in report.ended] == ["cancelled"]
    clearing.release(shop.gov, report.switch_id, reason="over", by=ANN)
    assert isinstance(failure(sent), ActionCancelled)
    assert shop.tasks.add.delay(1, 1).get(timeout=20) == 2
    assert len(shop.effects()) == 1
    assert audit.verify(shop.gov).problems == ()


def test_a_cleanup_is_not_interrupted(shop: Shop) -> None:
    sent = shop.lasting.cleans.delay(str(shop.folder))
    begun(shop, sent.id)
    report = halt(shop, Scope.ACTION, sent.id, 10)
    assert [one.state for one in report.ended] == ["cancelled"]
    assert f"cleaned {sent.id}" in shop.effects()


def test_a_stop_reaches_what_the_action_calls_directly(shop: Shop) -> None:
    sent = shop.lasting.outer.delay(str(shop.folder))
    eventually(lambda: any(line.startswith("started") for line in shop.effects()), "the inner body began")
    report = halt(shop, Scope.ACTION, sent.id, 10)
    (one,) = report.ended
    assert one.state == "cancelled"
    assert one.after_ms is not None
    assert one.after_ms < 10_000, "it was not left to the end of the grace"
    assert any(line.startswith("cleaned") for line in shop.effects())


def test_of_two_switches_the_shorter_grace_counts_and_a_grace_can_be_shortened(shop: Shop) -> None:
    first = shop.lasting.deaf.delay(str(shop.folder))
    begun(shop, first.id)
    halt(shop, Scope.ACTION, first.id, 600, wait=False)
    report = halt(shop, Scope.SYSTEM, EVERYTHING, 0.5)
    assert [one.state for one in report.ended] == ["cancelled"]
    clearing.release(shop.gov, report.switch_id, reason="over", by=ANN)
    second = shop.lasting.deaf.delay(str(shop.folder))
    begun(shop, second.id)
    halt(shop, Scope.ACTION, second.id, 600, wait=False)
    again = halt(shop, Scope.ACTION, second.id, 0.2)
    assert again.repeated
    assert [one.state for one in again.ended] == ["cancelled"]
    assert isinstance(failure(first), ActionCancelled)
    assert isinstance(failure(second), ActionCancelled)


@pytest.mark.parametrize("kind", ["again", "awaits"])
def test_whatever_a_body_is_made_of_it_ends_cancelled(shop: Shop, kind: str) -> None:
    sent = getattr(shop.lasting, kind).delay(str(shop.folder))
    begun(shop, sent.id)
    report = halt(shop, Scope.ACTION, sent.id, 10)
    assert [one.state for one in report.ended] == ["cancelled"]
    assert report.last_stop_ms is not None
    assert report.last_stop_ms < 10_000
    assert isinstance(failure(sent), ActionCancelled)
    assert (f"cleaned {sent.id}" in shop.effects()) == (kind == "awaits")
    assert audit.verify(shop.gov).problems == ()


def test_a_worker_that_is_frozen_is_named_and_stops_when_it_wakes_up(shop: Shop) -> None:
    sent = shop.lasting.sleeps.delay(str(shop.folder))
    begun(shop, sent.id)
    (running,) = switches.running_in(shop.gov, Switch("", Scope.ACTION, sent.id, Mode.KILL, "", 0, 0))
    pids = [shop.processes[-1].pid, int(running.child.rpartition("-")[2])]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        report = halt(shop, Scope.ACTION, sent.id, 0.2)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (report.acknowledged, report.silent, report.still_running) == ((), (running.worker_id,), 1)
    assert report.last_stop_ms is None
    assert isinstance(failure(sent), ActionCancelled)
    assert shop.tasks.add.delay(1, 2).get(timeout=20) == 3
    assert audit.verify(shop.gov).problems == ()


def test_only_a_pool_child_ends_what_was_started_in_its_group() -> None:
    program = (
        "import os, subprocess; from acp_tasks import offspring; os.setpgid(0, 0);"
        "other = subprocess.Popen(['sleep', '30']); offspring.kill_offspring(); print(other.poll()); other.kill();"
        "offspring.lead_group(); mine = subprocess.Popen(['sleep', '30']); "
        "offspring.kill_offspring(); print(mine.wait())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["None", "-9"]
    assert os.getpid() != offspring._leader
