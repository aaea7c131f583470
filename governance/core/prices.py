"""What a model call costs: unit prices in integers, and the cost of tokens, rounded up to a whole micro-USD."""

from dataclasses import dataclass
from typing import Final

from governance.core.money import TOKENS_MAX

PER_TOKENS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Tokens of one call; `cached` of the `input` came from the provider's cache."""

    input: int
    output: int
    cached: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output

    @property
    def is_plausible(self) -> bool:
        """Whether this can be what a call used: whoever reports it may report anything."""
        parts = (self.input, self.output, self.cached)
        # Not `isinstance`: true and false are integers to it.
        return all(type(part) is int and 0 <= part <= TOKENS_MAX for part in parts) and self.cached <= self.input


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Micro-USD per million tokens, and the table they are from."""

    input: int
    cached: int
    output: int
    table: str

    def cost_micros(self, used: TokensUsed) -> int:
        """Rounded up: a thousand calls that cost next to nothing do not cost nothing."""
        cached = min(used.cached, used.input)
        exact = (used.input - cached) * self.input + cached * self.cached + used.output * self.output
        return -(-exact // PER_TOKENS)

    def output_within(self, cost_micros: int, input_tokens: int) -> int | None:
        """How many tokens of output fit into a cost with this input; None: any number, they are free."""
        left = cost_micros * PER_TOKENS - input_tokens * self.input
        if left < 0:
            return 0
        return left // self.output if self.output else None
