"""Sums of hours: percentiles within their bounds, cost without a rounding, trends that say what they compare."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from governance.core.rollups import Tally, cost_of_success, latency_bound_ms, latency_ms
from governance.core.trends import Line, lines, merged


@given(st.lists(st.integers(0, 40 * 24 * 3600 * 1_000_000), min_size=1, max_size=60), st.sampled_from([50, 95]))
def test_a_percentile_is_close_from_above_and_never_below(spans_us: list[int], percent: int) -> None:
    tallies: list[Tally] = [{("latency", str(latency_bound_ms(span))): 1} for span in spans_us]
    found = latency_ms(merged(tallies), percent)
    exact_ms = sorted(-(-span // 1000) for span in spans_us)[-(-len(spans_us) * percent // 100) - 1]
    assert found is not None
    assert exact_ms <= found <= max(exact_ms, exact_ms * 33 // 32 + 1)
    if exact_ms < 64:
        assert found == exact_ms


def test_without_answers_and_successes_there_is_nothing_to_say() -> None:
    assert latency_ms({}, 50) is None
    assert cost_of_success({("cost", "micros"): 5}) is None
    assert cost_of_success({("cost", "micros"): 10, ("ended", "succeeded"): 3}) == Fraction(10, 3)


def line(found: list[Line], name: str) -> Line:
    return next(line for line in found if line.name == name)


def test_a_line_compares_windows_and_not_bars() -> None:
    bars: list[Tally] = [{("ended", "denied"): 2, ("denied", "r1"): 2}, {}]
    found = lines(bars, bars[0], {("ended", "denied"): 8, ("denied", "r2"): 8})
    denied = line(found, "actions denied")
    assert (denied.latest, denied.value, denied.before, denied.change_percent) == (0, 2, 8, -75.0)
    assert denied.points == (2, 0)
    assert [each.name for each in found if each.name.startswith("denied by")] == ["denied by r2", "denied by r1"]
    assert line(found, "denied by r1").change_percent is None
    assert line(found, "cost per success").value is None
