"""Prices of models: the operator's from the policy, else those of the table that genai-prices brings along.

The table is part of the installed package and asks nobody; it is read when a price is first wanted, since it is large.
"""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

from governance.core.models import ModelPolicy
from governance.core.money import MICROS_PER_USD
from governance.core.prices import UnitPrices

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def prices_of(
    policy: ModelPolicy, model: str, *, input_tokens: int, at_us: int, api_url: str | None = None
) -> UnitPrices | None:
    """What `model` costs at `at_us` for a call with so much input (some cost more beyond a size); None: nobody knows.

    The table knows some models at several providers: the one that `api_url` leads to counts, else the model's maker.
    """
    return policy.price_of(model) or _from_table(model, input_tokens, at_us, api_url)


def _from_table(model: str, input_tokens: int, at_us: int, api_url: str | None) -> UnitPrices | None:
    table = _table()
    if table is None:
        return None
    for url in (api_url, None):
        try:
            _, found = table.find_provider_model(model, None, None, url)
        except LookupError:
            continue
        prices = found.get_prices(_EPOCH + timedelta(microseconds=at_us))
        given, output = _micros(prices, "input_mtok", input_tokens), _micros(prices, "output_mtok", input_tokens)
        if given is None or output is None:
            return None
        cached = _micros(prices, "cache_read_mtok", input_tokens)
        # What has no price of its own is not free.
        return UnitPrices(
            input=given,
            cached=given if cached is None else cached,
            output=output,
            table=f"genai-prices {version('genai-prices')}",
            written=_micros(prices, "cache_write_mtok", input_tokens),
        )
    return None


@lru_cache(maxsize=1)
def _table() -> Any:
    try:
        from genai_prices import data_snapshot
    except ModuleNotFoundError as problem:
        if problem.name != "genai_prices":
            raise
        return None
    return data_snapshot.get_snapshot()


def _micros(prices: Any, name: str, input_tokens: int) -> int | None:
    """Micro-USD per million tokens, rounded up; a tier's price is that of every token once the input is beyond it."""
    price = getattr(prices, name, None)
    if price is None:
        return None
    if not isinstance(price, Decimal):
        beyond = [tier.price for tier in price.tiers if input_tokens > tier.start]
        price = beyond[-1] if beyond else price.base
    return int((Decimal(price) * MICROS_PER_USD).to_integral_value(ROUND_CEILING))
