"""A tick of a periodic job is claimed once, whoever is faster and whatever the clock does."""

from governance.operations.ticks import claim
from tests.support.governed import Desk, ManualClock

EVERY_S = 5.0


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def test_a_tick_is_claimed_once_and_each_job_has_its_own(desk: Desk) -> None:
    assert [claim(desk.gov, job, EVERY_S) is not None for job in ("a", "a", "b", "b")] == [True, False, True, False]
    clock(desk).pass_s(EVERY_S)
    assert [claim(desk.gov, "a", EVERY_S) is not None for _ in range(2)] == [True, False]


def test_a_clock_a_little_behind_does_no_tick_again(desk: Desk) -> None:
    """Two machines whose clocks differ, or a claim that waited for its turn to write."""
    for _ in range(12):
        assert claim(desk.gov, "a", EVERY_S)
        clock(desk).pass_s(EVERY_S)
    clock(desk).pass_s(-12 * EVERY_S)
    for _ in range(12):
        assert not claim(desk.gov, "a", EVERY_S)
        clock(desk).pass_s(EVERY_S)
    assert claim(desk.gov, "a", EVERY_S)


def test_a_job_goes_on_after_about_a_minute_when_the_clock_is_put_back_by_more(desk: Desk) -> None:
    for _ in range(40):
        assert claim(desk.gov, "a", EVERY_S)
        clock(desk).pass_s(EVERY_S)
    clock(desk).pass_s(-40 * EVERY_S)
    done = []
    for _ in range(20):
        done.append(claim(desk.gov, "a", EVERY_S) is not None)
        clock(desk).pass_s(EVERY_S)
    assert done == [False] * 14 + [True] * 6
