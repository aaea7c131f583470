"""One call of a model inside an action, once it is over."""

from dataclasses import dataclass
from enum import StrEnum

from governance.core.models import ModelAllowed
from governance.core.prices import TokensUsed, UnitPrices


class CallFlag(StrEnum):
    """Why a call counts as more than it can prove."""

    UNREPORTED = "unreported"  # the answer had no usage, or there was none: everything that was set aside counts
    UNPRICED = "unpriced"  # nobody knows a price: the action's whole hold of money is posted


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What a call used and cost. Flagged, `used` and `cost_micros` are what was set aside for it."""

    id: str
    access: ModelAllowed
    used: TokensUsed
    cost_micros: int
    prices: UnitPrices | None
    flag: CallFlag | None
    at_us: int

    def payload(self) -> dict[str, object]:
        """What the trail says of it."""
        payload: dict[str, object] = {
            "call": self.id,
            "model": self.access.model,
            "tier": self.access.tier,
            "tokens": {"input": self.used.input, "cached": self.used.cached, "output": self.used.output},
            "cost_micros": self.cost_micros,
        }
        if self.prices is not None:
            payload["prices"] = {
                "input": self.prices.input,
                "cached": self.prices.cached,
                "output": self.prices.output,
                "table": self.prices.table,
            }
        if self.used.written:
            payload["written"] = {
                "tokens": self.used.written,
                "price": None if self.prices is None else self.prices.written,
            }
        if self.flag is not None:
            payload["flag"] = self.flag
        if self.access.override is not None:
            payload["override"] = self.access.override.payload()
        return payload
