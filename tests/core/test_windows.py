"""Windows partition time, in local hours and days of their real length."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.core.windows import DAY_US, NEVER_US, Period, Window, WindowPlan, period_at, window_at
from governance.errors import InvalidOption

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana")
LENGTHS = tuple(minutes * MINUTE_US for minutes in (5, 15, 30, 40, 60, 90, 240, 480, 720, 1440))

# Local dates on which clocks change, with the real length of the day in minutes.
CHANGES = (
    ("America/New_York", "2026-03-08", 23 * 60),
    ("America/New_York", "2026-11-01", 25 * 60),
    ("Europe/Berlin", "2026-03-29", 23 * 60),
    ("Europe/Berlin", "2026-10-25", 25 * 60),
    ("Australia/Lord_Howe", "2026-10-04", 23 * 60 + 30),
    ("Australia/Lord_Howe", "2026-04-05", 24 * 60 + 30),
    ("America/Havana", "2026-03-08", 23 * 60),  # there is no midnight, clocks go from 0:00 to 1:00
    ("America/Havana", "2026-11-01", 25 * 60),  # midnight comes twice, clocks go from 1:00 to 0:00
    ("America/Toronto", "1919-03-31", 23 * 60 + 30),  # clocks went from 23:30 to 0:30, over midnight
)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def local(zone: str, at_us: int) -> datetime:
    return (EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone))


def at(zone: str, text: str, fold: int = 0) -> int:
    return us(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold))


def since_midnight_us(wall: datetime) -> int:
    return ((wall.hour * 60 + wall.minute) * 60 + wall.second) * 1_000_000 + wall.microsecond


def starts_between(plan: WindowPlan, first_us: int, last_us: int) -> list[int]:
    starts, now_us = [], first_us
    while now_us < last_us:
        window = window_at(plan, now_us)
        starts.append(window.start_us)
        now_us = window.end_us
    return starts


def instants(zone: str) -> st.SearchStrategy[int]:
    """Any instant of 1970 to 2100, or one near a change of clocks."""
    anywhere = st.integers(0, us(datetime(2100, 1, 1, tzinfo=UTC)))
    changes = [at(zone, date) for changed, date, _ in CHANGES if changed == zone]
    if not changes:
        return anywhere
    near = st.builds(
        lambda midnight, minutes, rest: midnight + minutes * MINUTE_US + rest,
        st.sampled_from(changes),
        st.integers(-2 * 1440, 3 * 1440),
        st.sampled_from((-1, 0, 1)),
    )
    return st.one_of(near, anywhere)


@settings(deadline=None)
@given(st.data(), st.sampled_from(ZONES), st.sampled_from(LENGTHS))
def test_every_instant_is_in_exactly_one_window(data: st.DataObject, zone: str, length_us: int) -> None:
    plan, now_us = WindowPlan(length_us, zone), data.draw(instants(zone))
    window = window_at(plan, now_us)
    assert window.start_us <= now_us < window.end_us
    assert window_at(plan, window.start_us) == window
    assert window_at(plan, window.end_us - 1) == window
    assert window_at(plan, window.end_us).start_us == window.end_us
    assert window_at(plan, window.start_us - 1).end_us == window.start_us


@settings(deadline=None)
@given(st.data(), st.sampled_from(ZONES), st.sampled_from(LENGTHS))
def test_a_window_starts_at_its_local_time_or_at_the_jump_that_skips_it(
    data: st.DataObject, zone: str, length_us: int
) -> None:
    start_us = window_at(WindowPlan(length_us, zone), data.draw(instants(zone))).start_us
    jumped = local(zone, start_us).utcoffset() != local(zone, start_us - 1).utcoffset()
    assert jumped or since_midnight_us(local(zone, start_us)) % length_us == 0


@settings(deadline=None)
@given(st.data(), st.sampled_from(ZONES), st.sampled_from(LENGTHS))
def test_a_window_is_as_long_as_planned_where_no_clock_changes(data: st.DataObject, zone: str, length_us: int) -> None:
    now_us = data.draw(instants(zone))
    offsets = {local(zone, now_us + hours * HOUR_US).utcoffset() for hours in range(-26, 27)}
    window = window_at(WindowPlan(length_us, zone), now_us)
    assert len(offsets) > 1 or window.end_us - window.start_us == length_us


@pytest.mark.parametrize("length_us", [m * MINUTE_US for m in (15, 30, 60, 240)])
@pytest.mark.parametrize(("zone", "date", "minutes"), CHANGES)
def test_starts_on_days_when_clocks_change_minute_by_minute(zone: str, date: str, minutes: int, length_us: int) -> None:
    """Against a plain definition: the clock shows a multiple of the length, or has just skipped one."""
    day = window_at(WindowPlan(DAY_US, zone), at(zone, f"{date} 12:00"))
    first_us = window_at(WindowPlan(DAY_US, zone), day.start_us - 1).start_us
    last_us = window_at(WindowPlan(DAY_US, zone), day.end_us).end_us
    midnight = datetime.fromisoformat(date) - timedelta(days=3)

    def shown_us(at_us: int) -> int:
        return (local(zone, at_us).replace(tzinfo=None) - midnight) // timedelta(microseconds=1)

    expected = [
        minute_us
        for minute_us in range(first_us, last_us, MINUTE_US)
        if shown_us(minute_us) % length_us == 0
        or shown_us(minute_us) // length_us > shown_us(minute_us - MINUTE_US) // length_us
    ]
    assert starts_between(WindowPlan(length_us, zone), first_us, last_us) == expected


@pytest.mark.parametrize(("zone", "date", "minutes"), CHANGES)
def test_a_day_has_its_real_length(zone: str, date: str, minutes: int) -> None:
    day = window_at(WindowPlan(DAY_US, zone), at(zone, f"{date} 12:00"))
    assert day.end_us - day.start_us == minutes * MINUTE_US
    assert local(zone, day.start_us).date().isoformat() == date
    assert local(zone, day.start_us - 1).date().isoformat() < date
    assert local(zone, day.end_us - 1).date().isoformat() == date


def test_hours_of_new_york_stay_hours_when_clocks_change() -> None:
    zone, plan = "America/New_York", WindowPlan(HOUR_US, "America/New_York")
    spring = starts_between(plan, at(zone, "2026-03-08 00:00"), at(zone, "2026-03-09 00:00"))
    assert [local(zone, start).hour for start in spring] == [0, 1, *range(3, 24)]
    autumn = starts_between(plan, at(zone, "2026-11-01 00:00"), at(zone, "2026-11-02 00:00"))
    assert [local(zone, start).hour for start in autumn] == [0, 1, 1, *range(2, 24)]
    assert {later - start for start, later in pairwise(autumn)} == {HOUR_US}


def test_four_hours_of_berlin_start_at_local_midnight_and_take_the_change_in() -> None:
    zone, plan = "Europe/Berlin", WindowPlan(4 * HOUR_US, "Europe/Berlin")
    assert window_at(plan, at(zone, "2026-10-25 03:30")) == Window(
        at(zone, "2026-10-25 00:00"), at(zone, "2026-10-25 00:00") + 5 * HOUR_US
    )
    assert window_at(plan, at(zone, "2026-03-29 03:30")) == Window(
        at(zone, "2026-03-29 00:00"), at(zone, "2026-03-29 00:00") + 3 * HOUR_US
    )
    assert window_at(plan, at(zone, "2026-07-01 05:00")) == Window(
        at(zone, "2026-07-01 04:00"), at(zone, "2026-07-01 08:00")
    )


def test_lord_howe_jumps_by_half_an_hour() -> None:
    zone, plan = "Australia/Lord_Howe", WindowPlan(HOUR_US, "Australia/Lord_Howe")
    jump = at(zone, "2026-10-04 01:00") + HOUR_US
    assert window_at(plan, jump) == Window(jump, jump + HOUR_US // 2)
    assert local(zone, jump).isoformat()[11:16] == "02:30"
    half_hours = WindowPlan(HOUR_US // 2, zone)
    autumn = starts_between(half_hours, at(zone, "2026-04-05 00:00"), at(zone, "2026-04-05 03:00"))
    assert [local(zone, start).isoformat()[11:16] for start in autumn] == [
        "00:00", "00:30", "01:00", "01:30", "01:30", "02:00", "02:30"
    ]  # fmt: skip


def test_hours_of_kolkata_start_at_its_full_hours() -> None:
    window = window_at(WindowPlan(HOUR_US, "Asia/Kolkata"), us(datetime(2026, 5, 1, 10, 45, tzinfo=UTC)))
    assert window == Window(us(datetime(2026, 5, 1, 10, 30, tzinfo=UTC)), us(datetime(2026, 5, 1, 11, 30, tzinfo=UTC)))
    day = window_at(WindowPlan(DAY_US, "Asia/Kolkata"), us(datetime(2026, 5, 1, 10, 45, tzinfo=UTC)))
    assert day.start_us == us(datetime(2026, 4, 30, 18, 30, tzinfo=UTC))


def test_a_date_that_never_was_has_no_window() -> None:
    plan = WindowPlan(DAY_US, "Pacific/Apia")  # 30 December 2011 was skipped to change sides of the date line
    before = window_at(plan, at("Pacific/Apia", "2011-12-29 23:59"))
    assert before.end_us - before.start_us == DAY_US
    assert local("Pacific/Apia", before.end_us).date().isoformat() == "2011-12-31"
    assert window_at(WindowPlan(HOUR_US, "Pacific/Apia"), before.end_us).start_us == before.end_us


@pytest.mark.parametrize(
    "length_us", [0, -HOUR_US, 1, 500_000, 7 * HOUR_US, 5 * HOUR_US, 2 * DAY_US, HOUR_US + 1, 7 * 1_000_000]
)
def test_a_length_that_does_not_divide_a_day_is_refused(length_us: int) -> None:
    with pytest.raises(InvalidOption, match="divides a day"):
        WindowPlan(length_us, "UTC")


@pytest.mark.parametrize(
    "name", ["Mars/Base", "", "America", "../etc/passwd", "/etc/localtime", "UTC\x00", "europe berlin"]
)
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="time zone such as"):
        WindowPlan(HOUR_US, name)


@settings(deadline=None)
@given(st.data(), st.sampled_from(ZONES), st.sampled_from(list(Period)))
def test_every_instant_is_in_exactly_one_window_of_a_period(data: st.DataObject, zone: str, period: Period) -> None:
    now_us = data.draw(instants(zone))
    window = period_at(period, zone, now_us)
    assert window.start_us <= now_us < window.end_us
    assert period_at(period, zone, window.start_us) == period_at(period, zone, window.end_us - 1) == window
    if period is not Period.UNLIMITED:
        assert period_at(period, zone, window.end_us).start_us == window.end_us
        assert period_at(period, zone, window.start_us - 1).end_us == window.start_us


@settings(deadline=None)
@given(st.data(), st.sampled_from(ZONES))
def test_periods_follow_the_local_calendar(data: st.DataObject, zone: str) -> None:
    now_us = data.draw(instants(zone))
    day = period_at(Period.DAILY, zone, now_us)
    week, month = (period_at(period, zone, now_us) for period in (Period.WEEKLY, Period.MONTHLY))
    assert day == window_at(WindowPlan(DAY_US, zone), now_us)
    # Noon is on the date that a day is of, also where there is no midnight or there are two.
    first, last = local(zone, week.start_us + 12 * HOUR_US), local(zone, week.end_us - 12 * HOUR_US)
    assert (first.isoweekday(), last.isoweekday()) == (1, 7)
    assert (last.date() - first.date()).days == 6
    first, last = local(zone, month.start_us + 12 * HOUR_US), local(zone, month.end_us - 12 * HOUR_US)
    assert first.day == 1
    assert (first.year, first.month) == (last.year, last.month)
    assert (last.date() + timedelta(days=1)).day == 1
    for longer in (week, month):
        assert window_at(WindowPlan(DAY_US, zone), longer.start_us).start_us == longer.start_us
        assert window_at(WindowPlan(DAY_US, zone), longer.end_us - 1).end_us == longer.end_us


@pytest.mark.parametrize(
    ("zone", "now", "period", "start", "end", "hours"),
    [
        ("UTC", "2028-02-10 12:00", Period.MONTHLY, "2028-02-01", "2028-03-01", 29 * 24),  # a leap year's
        ("UTC", "2027-02-28 23:59", Period.MONTHLY, "2027-02-01", "2027-03-01", 28 * 24),
        ("UTC", "2100-02-28 23:59", Period.MONTHLY, "2100-02-01", "2100-03-01", 28 * 24),
        ("UTC", "2026-12-31 23:59", Period.MONTHLY, "2026-12-01", "2027-01-01", 31 * 24),
        ("UTC", "2027-01-01 00:00", Period.WEEKLY, "2026-12-28", "2027-01-04", 7 * 24),
        ("Europe/Berlin", "2026-03-29 23:59", Period.MONTHLY, "2026-03-01", "2026-04-01", 31 * 24 - 1),
        ("Europe/Berlin", "2026-03-29 23:59", Period.WEEKLY, "2026-03-23", "2026-03-30", 7 * 24 - 1),
        ("Europe/Berlin", "2026-10-25 02:30", Period.WEEKLY, "2026-10-19", "2026-10-26", 7 * 24 + 1),
        ("America/New_York", "2026-11-30 23:59", Period.MONTHLY, "2026-11-01", "2026-12-01", 30 * 24 + 1),
        ("America/Havana", "2026-03-08 01:00", Period.DAILY, "2026-03-08", "2026-03-09", 23),  # there is no midnight
    ],
)
def test_a_period_has_its_real_length(zone: str, now: str, period: Period, start: str, end: str, hours: int) -> None:
    window = period_at(period, zone, at(zone, now))
    assert (window.end_us - window.start_us) == hours * HOUR_US
    assert (window.start_us, window.end_us) == (at(zone, f"{start} 00:00"), at(zone, f"{end} 00:00"))


def test_an_unlimited_period_never_ends() -> None:
    assert period_at(Period.UNLIMITED, "UTC", at("UTC", "2026-01-01 00:00")) == Window(0, NEVER_US)
    assert local("UTC", NEVER_US).year == 9998
