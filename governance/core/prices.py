"""What a model call costs: unit prices in integers, and the cost of tokens, rounded up to a whole micro-USD."""

from dataclasses import dataclass
from typing import Final

from governance.core.money import TOKENS_MAX

PER_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Tokens of one call; of the `input`, `cached` came from the provider's cache and `written` went into it."""

    input: int
    output: int
    cached: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output

    @property
    def is_plausible(self) -> bool:
        """Whether this can be what a call used: whoever reports it may report anything."""
        parts = (self.input, self.output, self.cached, self.written)
        # Not `isinstance`: true and false are integers to it.
        counted = all(type(part) is int and 0 <= part <= TOKENS_MAX for part in parts)
        return counted and self.cached + self.written <= self.input


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Micro-USD per million tokens, and the table they are from. `written` None: that costs what other input does."""

    input: int
    cached: int
    output: int
    table: str
    written: int | None = None

    def cost_micros(self, used: TokensUsed) -> int:
        """Rounded up: a thousand calls that cost next to nothing do not cost nothing."""
        cached = min(used.cached, used.input)
        written = min(used.written, used.input - cached)
        plain = used.input - cached - written
        dear = self.input if self.written is None else self.written
        return _whole(plain * self.input + cached * self.cached + written * dear + used.output * self.output)

    def cost_micros_max(self, used: TokensUsed) -> int:
        """What it may cost before anybody knows what of the input the provider's cache will take."""
        return _whole(used.input * self._dearest + used.output * self.output)

    def output_within(self, cost_micros: int, input_tokens: int) -> int | None:
        """How many tokens of output surely fit into a cost with this input; None: any number, they are free."""
        left = cost_micros * PER_TOKENS - input_tokens * self._dearest
        if left < 0:
            return 0
        return left // self.output if self.output else None

    @property
    def _dearest(self) -> int:
        return max(self.input, self.cached, self.written or 0)


def _whole(exact: int) -> int:
    return -(-exact // PER_TOKENS)
