"""One call of a model, from the question whether it may be made to the record of what it used."""

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, assert_never

import stamina
import structlog

from governance.core.ledger import Unit
from governance.core.model_calls import CallFlag, ModelCall
from governance.core.prices import TokensUsed
from governance.errors import AttemptFenced, ModelCallRefused, StoreUnavailable
from governance.middleware.allowance import SetAside
from governance.operations import model_calls
from governance.operations.model_calls import MayCall, MayNotCall, NotOwned
from governance.operations.top_up import Gone, NoRoom
from governance.tracing import ModelCallSpan, model_call

if TYPE_CHECKING:
    from acp_tasks.run import Run

log = structlog.get_logger(__name__)

# What is read costs at most a token for so many characters.
_TOKEN_CHARS: Final = 3
# An answer that would have to be shorter than this is not worth its input; one that asks for less may have it.
_OUTPUT_TOKENS_MIN: Final = 16
_ATTEMPTS: Final = 6
_TIMEOUT_S: Final = 5.0


class Reservation:
    """What one call may use, from before it is sent until what it used is known. A context manager.

    Left without `settle` or `unused`, everything that was set aside counts, and is flagged.
    """

    def __init__(
        self,
        run: "Run",
        may: MayCall,
        input_tokens: int,
        output_tokens: int,
        answers: int,
        cost_micros: int,
        span: ModelCallSpan,
        ending: ExitStack,
    ) -> None:
        self._run = run
        self._ending = ending
        #: Lasts until the context is left.
        self.span = span
        self._may = may
        self._aside = TokensUsed(input_tokens, output_tokens * answers)
        self._cost_micros = cost_micros
        self._open = True
        #: The bound to send with the call: the answer may be so long.
        self.output_tokens = output_tokens

    @property
    def output_tokens_held(self) -> int:
        """The bound of all answers together, where several were asked for."""
        return self._aside.output

    @property
    def model(self) -> str:
        return self._may.access.model

    def settle(self, used: TokensUsed | None) -> None:
        """The call is over and has used this; None, or what nothing can have used: nobody knows.

        Raises StoreUnavailable, AttemptFenced.
        """
        assert self._open, "a call ends once"
        self._open = False
        flag: CallFlag | None = None
        unknown: frozenset[Unit] = frozenset()
        cost_micros, prices = self._cost_micros, self._may.prices
        if used is None or not used.is_plausible:
            flag, unknown, used = CallFlag.UNREPORTED, frozenset({Unit.COST, Unit.TOKENS}), self._aside
        elif prices is None:
            flag, unknown = CallFlag.UNPRICED, frozenset({Unit.COST})
        else:
            prices = self._may.prices_for(used.input) or prices
            cost_micros = prices.cost_micros(used)
        self._tell(used, cost_micros, flag)
        aside = (self._cost_micros, self._aside.total)
        self._run.allowance.use(aside, (cost_micros, used.total), unknown)
        gov = self._run.governance
        call = ModelCall(
            id=gov.new_id(),
            access=self._may.access,
            used=used,
            cost_micros=cost_micros,
            prices=prices,
            flag=flag,
            at_us=gov.clock.now_us(),
        )
        # What was used counts from the line before on, also when it cannot be written down.
        if not _written(self._run, call):
            raise AttemptFenced(self._run.action_id, self._run.attempt)

    def unused(self) -> None:
        """The endpoint refused the call, or never had it: it used nothing."""
        assert self._open, "a call ends once"
        self._open = False
        self._run.allowance.give_back(self._cost_micros, self._aside.total)

    def _tell(self, used: TokensUsed, cost_micros: int, flag: CallFlag | None) -> None:
        known = flag is not CallFlag.UNREPORTED
        self.span.used(
            input_tokens=used.input if known else None,
            output_tokens=used.output if known else None,
            cached_tokens=used.cached if known else None,
            cost_micros=cost_micros,
            flag=flag,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._open:
                self._settle_unknown(error)
        finally:
            self._ending.__exit__(kind, error, trace)

    def _settle_unknown(self, error: BaseException | None) -> None:
        try:
            self.settle(None)
        except (StoreUnavailable, AttemptFenced) as problem:
            if error is None:
                raise
            # It counts all the same; what ended the call is what its caller has to hear.
            log.warning("model call not recorded", model=self.model, problem=str(problem))


def reserve(
    run: "Run",
    model: str,
    input_characters: int,
    max_tokens: int,
    *,
    answers: int = 1,
    api_url: str | None = None,
    provider: str | None = None,
) -> Reservation:
    """Asks whether this run may call `model` now and sets aside what the call may use at most.

    With less room than for `max_tokens`, the answer may be as long as there is room for. Raises ModelCallRefused,
    AttemptFenced, StoreUnavailable.
    """
    assert max_tokens > 0, "an answer has at least one token"
    with ExitStack() as ending:
        span = ending.enter_context(model_call(model, provider=provider, max_tokens=max_tokens))
        try:
            may, aside, cost_micros = _set_aside(run, model, input_characters, max_tokens, answers, api_url)
        except ModelCallRefused as refused:
            span.decided("refused", refused.rule)
            raise
        span.decided("allowed", max_tokens=aside.output)
        return Reservation(run, may, aside.input, aside.output, answers, cost_micros, span, ending.pop_all())


def _set_aside(
    run: "Run", model: str, input_characters: int, max_tokens: int, answers: int, api_url: str | None
) -> tuple[MayCall, TokensUsed, int]:
    """By which access, and what was set aside: the input and each answer in tokens, all of it in micro-USD."""
    input_tokens = -(-input_characters // _TOKEN_CHARS)
    may = _asked(run, model, input_tokens, api_url)
    if may.prices is None and not run.allowance.left(Unit.COST):
        reason = f"nobody knows what {model} costs, and this action holds no money to charge: declare its cost_usd, or "
        raise ModelCallRefused(model, "price:unknown", f"{reason}give the model a price under models.prices")
    shortest, output_tokens = min(max_tokens, _OUTPUT_TOKENS_MIN), max_tokens
    while True:
        tokens = TokensUsed(input_tokens, output_tokens * answers)
        cost_micros = 0 if may.prices is None else may.prices.cost_micros_max(tokens)
        match run.allowance.set_aside(cost_micros, tokens.total):
            case SetAside():
                return may, TokensUsed(input_tokens, output_tokens), cost_micros
            case Gone():
                raise AttemptFenced(run.action_id, run.attempt)
            case NoRoom() as short:
                fits = min(_fits(run, may, short, input_tokens) // answers, output_tokens - 1)
                if fits < shortest:
                    _refuse(run, model, model_calls.no_room(run.governance, run.admitted, model, short))
                output_tokens = fits
            case other:
                assert_never(other)


def _asked(run: "Run", model: str, input_tokens: int, api_url: str | None) -> MayCall:
    asked = model_calls.ask(run.governance, run.admitted, run.policy, model, input_tokens=input_tokens, api_url=api_url)
    if not isinstance(asked, MayCall):
        _refuse(run, model, asked)
    assert isinstance(asked, MayCall)
    return asked


def _refuse(run: "Run", model: str, refusal: MayNotCall | NotOwned) -> None:
    if isinstance(refusal, NotOwned):
        raise AttemptFenced(run.action_id, run.attempt)
    raise ModelCallRefused(model, refusal.rule, refusal.reason)


def _fits(run: "Run", may: MayCall, short: NoRoom, input_tokens: int) -> int:
    """How many tokens of output there is room for, as far as the account without room for all of it says."""
    room = run.allowance.left(short.account.unit) + short.account.left
    if short.account.unit is Unit.TOKENS:
        return max(room - input_tokens, 0)
    assert may.prices is not None, "without a price no money is set aside"
    fits = may.prices.output_within(room, input_tokens)
    return 0 if fits is None else fits


def _written(run: "Run", call: ModelCall) -> bool:
    for attempt in stamina.retry_context(on=StoreUnavailable, attempts=_ATTEMPTS, timeout=_TIMEOUT_S, wait_initial=0.1):
        with attempt:
            return model_calls.record(run.governance, run.admitted, call)
    raise AssertionError("unreachable: the last attempt returns or raises")
