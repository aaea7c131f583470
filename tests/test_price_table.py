"""Prices of models: the operator's first, then the bundled table, else none."""

from dataclasses import replace

from governance.core.models import NO_MODELS, ModelPolicy
from governance.core.prices import UnitPrices
from governance.price_table import prices_of

NOW_US = 1_764_000_000_000_000
OWN = UnitPrices(input=1, cached=1, output=1, table="policy")


def test_the_operators_price_counts_before_the_tables() -> None:
    own = ModelPolicy(prices={"gpt-4o*": OWN})
    assert prices_of(own, "gpt-4o-mini", input_tokens=0, at_us=NOW_US) is OWN
    found = prices_of(NO_MODELS, "gpt-4o-mini", input_tokens=0, at_us=NOW_US)
    assert found is not None
    assert (found.input, found.cached, found.output) == (150_000, 75_000, 600_000)
    assert found.table.startswith("genai-prices ")
    # Nobody answers at this address for the table: the model's maker counts.
    assert prices_of(NO_MODELS, "gpt-4o-mini", input_tokens=0, at_us=NOW_US, api_url="http://127.0.0.1:1/v1") == found


def test_a_model_that_nobody_knows_has_no_price() -> None:
    assert prices_of(NO_MODELS, "scripted-small", input_tokens=0, at_us=NOW_US) is None
    # Known, and not sold by the token of words.
    assert prices_of(NO_MODELS, "dall-e-3", input_tokens=0, at_us=NOW_US) is None


def test_a_price_is_that_of_the_day_and_of_the_size_of_the_input() -> None:
    small = prices_of(NO_MODELS, "gemini-2.5-pro", input_tokens=1000, at_us=NOW_US)
    large = prices_of(NO_MODELS, "gemini-2.5-pro", input_tokens=300_000, at_us=NOW_US)
    assert small is not None
    assert large is not None
    assert large.input > small.input
    before = prices_of(NO_MODELS, "o3", input_tokens=0, at_us=1_740_000_000_000_000)
    after = prices_of(NO_MODELS, "o3", input_tokens=0, at_us=NOW_US)
    assert before is not None
    assert after is not None
    assert (before.output, after.output) == (40_000_000, 8_000_000)
    assert replace(before, input=after.input, output=after.output) == after


def test_what_is_written_to_a_cache_has_a_price_where_the_table_has_one() -> None:
    wrote = prices_of(NO_MODELS, "claude-sonnet-4-5", input_tokens=0, at_us=NOW_US)
    assert wrote is not None
    assert (wrote.input, wrote.written) == (3_000_000, 3_750_000)
    plain = prices_of(NO_MODELS, "gpt-4o-mini", input_tokens=0, at_us=NOW_US)
    assert plain is not None
    assert plain.written is None
