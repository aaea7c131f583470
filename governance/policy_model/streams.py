"""Streams: their windows and the limits of each."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from governance.core.ledger import STRIPES_MAX
from governance.core.plans import OnExhausted
from governance.core.windows import WindowPlan
from governance.errors import InvalidOption
from governance.policy_model.values import Count, Duration, Model, Timezone, Tokens, Usd


def _window(length_us: int) -> int:
    try:
        return WindowPlan(length_us, "UTC").length_us
    except InvalidOption as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _of_a_stream(value: object) -> object:
    if value not in ("deny", "defer", "stop"):
        raise ValueError("expected one of 'deny', 'defer' or 'stop'")
    return value


class LimitsModel(Model):
    """Limits of one window; a unit that is left out is unlimited."""

    cost_usd: Usd | None = None
    actions: Count | None = None
    tokens: Tokens | None = None


class StreamModel(Model):
    window: Annotated[Duration, AfterValidator(_window)]
    timezone: Timezone = "UTC"
    limits: LimitsModel
    on_exhausted: Annotated[OnExhausted, BeforeValidator(_of_a_stream)] = OnExhausted.DENY
    grace: Duration | None = None
    stripes: Annotated[int, Field(strict=True, ge=1, le=STRIPES_MAX)] = 1
