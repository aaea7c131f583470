"""Two-phase accounting: whatever a run reports, a hold is closed exactly once and nothing is made up or lost."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from governance.core.ledger import (
    Account,
    EntryKind,
    Flag,
    Hold,
    Unit,
    Usage,
    estimate,
    exhausted,
    expire,
    held_in_all,
    holds_for,
    row_id,
    settle,
    shares,
    summed_up,
    void,
)

amounts = st.integers(min_value=0, max_value=10**12)
reported = st.none() | amounts


@st.composite
def holds(draw: st.DrawFn) -> tuple[Hold, ...]:
    taken = estimate(draw(amounts), draw(amounts))
    return tuple(Hold(f"account:{unit}", unit, taken[unit]) for unit in Unit)


@given(holds(), reported, reported)
def test_a_settled_hold_is_released_whole_and_posts_what_was_used(
    taken: tuple[Hold, ...], cost: int | None, tokens: int | None
) -> None:
    closings = {c.account_id: c for c in settle(taken, Usage(cost, tokens))}
    for hold in taken:
        closing = closings[hold.account_id]
        assert closing.kind is EntryKind.POST
        assert closing.held_delta == -hold.amount
        used = {Unit.COST: cost, Unit.TOKENS: tokens, Unit.ACTIONS: 1}[hold.unit]
        assert closing.posted_delta == (hold.amount if used is None else used)
        if used is None:
            assert closing.flag is (Flag.UNREPORTED if hold.amount else None)
        else:
            assert closing.flag is (Flag.OVER_HOLD if used > hold.amount else None)


# What an attempt holds more each time, and in which accounts besides its session's: days pass, budgets come and go.
steps = st.lists(
    st.tuples(st.integers(1, 1000), st.frozensets(st.sampled_from(["day1", "day2", "comes-and-goes"]))),
    min_size=1,
    max_size=8,
)


@given(steps, reported | st.integers(0, 8000), st.data())
def test_what_is_held_at_several_times_is_charged_to_the_accounts_of_each(
    steps: list[tuple[int, frozenset[str]]], used: int | None, data: st.DataObject
) -> None:
    entries, held, charged, total, last = [], Counter[str](), Counter[str](), 0, set[str]()
    counted = sum(amount for amount, _ in steps) if used is None else used
    for at_us, (amount, others) in enumerate(steps):
        accounts = ["session", *sorted(others)]
        entries += [(at_us, Hold(one, Unit.TOKENS, amount)) for one in data.draw(st.permutations(accounts))]
        held.update(dict.fromkeys(accounts, amount))
        # Of what is used the part that was held now; what is beyond all of it, where the last of it was held.
        part = min(max(counted - total, 0), amount)
        total += amount
        charged.update(dict.fromkeys(accounts, part))
        last = set(accounts)
    charged.update(dict.fromkeys(last, max(counted - total, 0)))
    taken = summed_up(entries)
    assert {hold.account_id: hold.amount for hold in taken} == held
    assert held_in_all(taken, Unit.TOKENS) == total

    closings = {closing.account_id: closing for closing in settle(taken, Usage(0, used))}

    assert {name: -closing.held_delta for name, closing in closings.items()} == held
    assert {name: closing.posted_delta for name, closing in closings.items()} == {name: charged[name] for name in held}
    assert closings["session"].exceeds == (counted > total)
    for name, closing in closings.items():
        assert closing.exceeds == (name in last and counted > total)
    unknown = {closing.account_id: closing for closing in settle(taken, Usage(0, used, (Unit.TOKENS,)))}
    if counted <= total:
        assert {name: closing.posted_delta for name, closing in unknown.items()} == held
    else:
        assert unknown == closings


def test_more_that_is_held_in_the_same_moment_is_one_more_each() -> None:
    """A clock that stands still: what one account holds twice was held twice."""
    entries = [(7, Hold(account, Unit.COST, amount)) for amount in (10, 5, 5) for account in ("a", "b")]
    assert summed_up(entries) == (Hold("a", Unit.COST, 20), Hold("b", Unit.COST, 20))


@given(holds())
def test_a_void_costs_nothing_and_an_expiry_costs_everything(taken: tuple[Hold, ...]) -> None:
    assert [(c.held_delta, c.posted_delta) for c in void(taken)] == [(-h.amount, 0) for h in taken]
    assert [(c.held_delta, c.posted_delta) for c in expire(taken)] == [(-h.amount, h.amount) for h in taken]


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_an_account_has_room_up_to_its_limit_and_not_beyond(limit: int, posted: int, held: int, amount: int) -> None:
    account = Account("a", Unit.COST, limit, posted, held, 0)
    assert account.has_room(amount) == (posted + held + amount <= limit)
    assert Account("a", Unit.COST, None, posted, held, 0).has_room(amount)


def test_holds_are_taken_in_one_order_and_the_first_short_account_is_named() -> None:
    accounts = [
        Account(name, unit, 5, 0, 0, 0) for name, unit in (("b", Unit.COST), ("a", Unit.TOKENS), ("c", Unit.ACTIONS))
    ]
    assert [hold.account_id for hold in holds_for(accounts, estimate(1, 2))] == ["a", "b", "c"]
    short = exhausted(accounts, estimate(9, 9))
    assert short is not None
    assert short.id == "a"
    assert exhausted(accounts, estimate(5, 5)) is None


@given(st.integers(0, 10_000), st.lists(st.integers(0, 1000), min_size=1, max_size=64), st.integers(0, 400), st.data())
def test_shares_sum_to_the_limit_and_leave_room_where_the_account_has_it(
    limit: int, used: list[int], amount: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(used) - 1))
    cut = [share or 0 for share in shares(limit, used, amount, first)]
    room, rooms = limit - sum(used), [share - taken for share, taken in zip(cut, used, strict=True)]
    assert sum(cut) == limit
    assert min(cut) >= 0
    if room < 0:
        assert max(rooms) <= 0
        return
    assert min(rooms) >= 0
    assert (rooms[first] >= amount) == (room >= amount)
    # Nothing is left in pieces that are too small, beyond what the whole account is short of one more.
    assert sum(left // max(amount, 1) for left in rooms) == room // max(amount, 1)
    assert max(rooms) - min(rooms) < 2 * max(amount, 1)


def test_stripes_of_an_account_without_a_limit_have_none() -> None:
    assert shares(None, [3, 0]) == [None, None]
    assert shares(5, [0] * 8) == [1, 1, 1, 1, 1, 0, 0, 0]
    assert [row_id("a", stripe) for stripe in (0, 1, 63)] == ["a", "a#01", "a#63"]
