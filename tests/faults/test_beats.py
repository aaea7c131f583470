"""Beat dies, or runs twice: every tick is done once, and none is missed for lack of one of them."""

import re
from collections import Counter
from datetime import datetime
from itertools import pairwise

from acp_tasks.control import JOBS
from tests.faults.conftest import lose
from tests.support.fleet import Shop, assert_intact, eventually, settle

_RUN = re.compile(r"Task (acp\.\w+)\[\S+\] succeeded in \S+: (\S+)")
_SENT = re.compile(r"^(\S+).*Sending due task (\w+)", re.MULTILINE)
_LATE_S = 2


def ticks(shop: Shop) -> dict[str, list[int]]:
    """Claimed ticks of each job, in order; a tick of the shop is a second."""
    claimed: dict[str, list[int]] = {}
    for job, tick in shop.gov.store.read("SELECT job, tick FROM ticks ORDER BY job, tick", {}):
        claimed.setdefault(job, []).append(tick)
    return claimed


def pauses_s(shop: Shop, beat: str) -> dict[str, float]:
    """The longest time between two messages of each job that a beat sent."""
    sent: dict[str, list[float]] = {}
    for at, name in _SENT.findall(shop.log(beat)):
        sent.setdefault(f"acp.{name}", []).append(datetime.fromisoformat(at).timestamp())
    return {job: max(b - a for a, b in pairwise(at)) for job, at in sent.items()}


def test_two_beats_do_nothing_twice_and_killing_one_loses_no_tick(shop: Shop) -> None:
    shop.worker().ready()
    beats = [shop.beat("beat1"), shop.beat("beat2")]
    asked = [shop.tasks.ask.delay(f"c{number}") for number in range(10)]
    eventually(lambda: ticks(shop).keys() == JOBS.keys(), "every job ran")
    # Nobody answered: both beats sweep, and each request is denied and told once.
    shop.gov.store.run("UPDATE tickets SET due_us = requested_us + 1, expires_us = requested_us + 1", {})
    for result in asked:
        shop.until(result.id, "denied")
    eventually(lambda: all(shop.log(beat).count("acp.sealing") > 3 for beat in ("beat1", "beat2")), "both beats send")
    beats[0].kill()
    beats[0].wait()
    killed_at = max(tick for claimed in ticks(shop).values() for tick in claimed)
    lost = lose(shop)
    eventually(lambda: all(claimed[-1] >= killed_at + 4 for claimed in ticks(shop).values()), "the other one goes on")
    shop.until(lost.id, "succeeded")
    beats[1].kill()
    beats[1].wait()
    settle(shop)

    # Every run but one of a tick found it claimed, and did nothing.
    eventually(lambda: shop.log("w").count("Task acp.") == 2 * len(_RUN.findall(shop.log("w"))), "no job runs")
    runs = _RUN.findall(shop.log("w"))
    assert Counter(job for job, did in runs if did != "None") == Counter({j: len(t) for j, t in ticks(shop).items()})
    assert [job for job, did in runs if did == "None"], "two beats raced"
    pauses = pauses_s(shop, "beat2")
    for job, claimed in ticks(shop).items():
        gap = max(b - a for a, b in pairwise(claimed))
        assert gap <= pauses[job] + _LATE_S, f"{job} rested for {gap} s while a beat was killed"
    denials = shop.gov.store.read("SELECT action_id FROM events WHERE kind = 'action.denied'", {})
    assert Counter(row[0] for row in denials) == {result.id: 1 for result in asked}
    assert_intact(shop)


def test_a_killed_beat_loses_nothing(shop: Shop) -> None:
    shop.worker(concurrency=1).ready()
    beat = shop.beat()
    eventually(lambda: "beat: Starting" in shop.log("beat"), "beat runs")
    beat.kill()
    beat.wait()
    lost = lose(shop)
    shop.beat()
    # On a machine that is busy a beat alone takes ten seconds to start.
    shop.until(lost.id, "succeeded", deadline_s=60)
    assert_intact(shop)
