"""The running action, as its own body sees it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from governance.core.money import COST_MICROS_MAX, TOKENS_MAX, cost_micros, token_count, usd
from governance.core.policy import Policy
from governance.errors import InvalidAmount, ModelCallFailed, NoCurrentRun, StoreUnavailable
from governance.middleware.allowance import Allowance
from governance.middleware.call import Call
from governance.operations import checkpoints
from governance.operations.answers import Admitted
from governance.operations.checkpoints import SavedPoint
from governance.operations.context import Governance
from governance.operations.running import emit, standing
from governance.operations.sessions import session_policy

if TYPE_CHECKING:
    from acp_tasks.agents.model_client import GovernedModel

# A check costs a round trip; a loop may ask as often as it likes.
_CHECK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Halt:
    """The kill switch that stops a run: its rule, and why it was engaged."""

    rule: str
    reason: str


class Waiting(Exception):
    """Raised by a body that waits for other actions: its attempt ends here, without a result and without a failure.

    The action holds no worker and no message. Once one of `action_ids` has ended, or after `look_again_s` of the
    fleet's clock at the latest, a further attempt begins, which finds what this one saved with `run.save_progress`.
    Each of `action_ids` carries `wakes(run)` as its `link` and `link_error`.
    """

    def __init__(self, action_ids: tuple[str, ...], look_again_s: float = 60.0) -> None:
        super().__init__(action_ids, look_again_s)
        self.action_ids, self.look_again_s = action_ids, look_again_s

    def __str__(self) -> str:
        return f"waits for {', '.join(self.action_ids)}"


class Run:
    """One attempt of a governed action, while its body runs."""

    def __init__(self, call: Call, header: Mapping[str, object], outer: "Run | None" = None) -> None:
        self._call = call
        self._running = call.running()
        self._checked_s = self._confirmed_s = time.monotonic()
        self._owned = True
        #: What it may still use. There is one from the start: threads that call models share it.
        self.allowance = Allowance(call)
        #: The action that calls this one directly, and waits for it.
        self.outer = outer
        #: Whether the body has begun, and may be interrupted.
        self.begun = False
        #: Set once a kill switch is known to cover this run, or one outside it; `told` once the body has asked since.
        self.halt: Halt | None = None
        self.told = False
        #: Whether the body was cut by an exception; whether it is asking by itself just now, and when it last had.
        self.cut = False
        self.asking = False
        self.asked_s = 0.0
        #: What actions made in this one inherit: stream, agent, identity, correlation.
        self.header = header
        #: Set by `Task.retry()`: the arguments and options of the next attempt.
        self.retry: tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]] | None = None

    @property
    def action_id(self) -> str:
        """The Celery task id; the same for every attempt."""
        return self._running.ref.id

    @property
    def name(self) -> str:
        """The task's name."""
        return self._running.action.name

    @property
    def command_id(self) -> str:
        """The idempotency key: give it to whatever this action changes, and a second attempt changes nothing twice."""
        return self._running.action.command_id

    @property
    def attempt(self) -> int:
        """The fencing number, from 1."""
        return self._running.ref.attempt

    @property
    def session_id(self) -> str:
        return self._running.ref.session_id

    @property
    def governance(self) -> Governance:
        return self._call.gov

    @property
    def admitted(self) -> Admitted:
        """The admission of this attempt."""
        return self._running

    @cached_property
    def policy(self) -> Policy:
        """The version that its session was opened with."""
        return session_policy(self._call.gov, self.session_id)

    def model(self, name: str) -> "GovernedModel":
        """A client for the model `name` at ACP_MODEL_URL, each of whose calls is governed and charged to this run.

        Raises ModelCallFailed when the client library is not there: pip install 'acp-tasks[models]'.
        """
        try:
            from acp_tasks.agents.model_client import GovernedModel
        except ModuleNotFoundError as problem:
            if problem.name != "openai":
                raise
            raise ModelCallFailed(name, "openai is not installed: pip install 'acp-tasks[models]'") from problem
        return GovernedModel(self, name)

    def spend(self, *, cost_usd: object = None, tokens: object = None) -> None:
        """Reports usage on top of what was reported before; it is posted when the action ends.

        Without any report of a unit that was held, the whole hold is posted and flagged. Raises InvalidAmount.
        """
        reported = self._call.reported
        if cost_usd is not None:
            total = (reported.cost_micros or 0) + cost_micros(cost_usd, "cost_usd")
            if total > COST_MICROS_MAX:
                raise InvalidAmount("cost_usd", cost_usd, f"at most {usd(COST_MICROS_MAX)} in one run")
            reported.cost_micros = total
        if tokens is not None:
            used = (reported.tokens or 0) + token_count(tokens, "tokens")
            if used > TOKENS_MAX:
                raise InvalidAmount("tokens", tokens, f"at most {TOKENS_MAX} in one run")
            reported.tokens = used

    def should_stop(self) -> bool:
        """True once a kill switch covers this run: clean up and return, or be cut short. It ends as cancelled.

        Also true once this attempt no longer owns its action: what it does from here on counts for nothing. While the
        store is away the last answer stands for as long as a lease lives, then the lease is presumed lost.
        """
        self.asking = True
        try:
            inside: list[Run] = []
            run: Run | None = self
            while run is not None:
                inside.append(run)
                run._check()
                if run.halt is not None:
                    for one in inside:
                        one.halt, one.told = one.halt or run.halt, True
                run = run.outer
        finally:
            # A store that is slow to answer makes nobody less attentive.
            self.asked_s = time.monotonic()
            self.asking = False
        return self.told or not self._owned

    def is_halted(self) -> bool:
        """Whether a kill switch is known to cover it, without looking."""
        return self.halt is not None

    def _check(self) -> None:
        """Looks at the store, unless it has been looked at just now."""
        now_s = time.monotonic()
        if not self._owned or self.halt is not None or now_s - self._checked_s < _CHECK_EVERY_S:
            return
        self._checked_s = now_s
        try:
            found = standing(self._call.gov, self._running.ref, self._running.action)
        except StoreUnavailable:
            self._owned = now_s - self._confirmed_s < self._call.gov.limits.lease_s
            return
        self._owned, self._confirmed_s = found.owned, now_s
        if found.switch is not None and self.halt is None:
            self.halt = Halt(found.switch.rule, found.switch.reason)

    def checkpoint(self, state: object, *, cycle: int | None = None) -> str:
        """Saves the agent's state, JSON of at most 256 KiB, as a restore point of its stream; its id.

        Raises InvalidOption, and AttemptFenced when this attempt has lost its action.
        """
        actor = self._running.action.agent_id or f"worker:{self._call.lease.worker_id}"
        stream = self._running.action.stream
        return checkpoints.save(self._call.gov, self._running.ref, stream, state, cycle=cycle, actor=actor)

    def last_checkpoint(self) -> SavedPoint | None:
        """The latest restore point of this stream that holds an agent's state, None when there is none."""
        return checkpoints.last_state(self._call.gov, self._running.action.stream)

    def save_progress(self, state: object) -> None:
        """Saves how far this action has come, JSON of at most 256 KiB, in place of what it saved before.

        Raises InvalidOption, and AttemptFenced when this attempt has lost its action: then it must go no further.
        """
        actor = self._running.action.agent_id or f"worker:{self._call.lease.worker_id}"
        checkpoints.save_progress(self._call.gov, self._running.ref, state, actor=actor)

    def progress(self) -> Any:
        """What this action saved last, in this attempt or an earlier one; None when it never did."""
        return checkpoints.progress(self._call.gov, self._running.ref.id)

    def emit(self, kind: str, payload: Mapping[str, object] | None = None) -> None:
        """Writes the event `agent.<kind>` to the session's trail. Raises AttemptFenced, InvalidOption."""
        actor = self._running.action.agent_id or f"worker:{self._call.lease.worker_id}"
        emit(self._call.gov, self._running.ref, kind, payload or {}, actor)


_current: ContextVar[Run | None] = ContextVar("acp_current_run", default=None)


def current_run() -> Run:
    """The run of the governed action whose body is calling. Raises NoCurrentRun anywhere else."""
    run = _current.get()
    if run is None:
        raise NoCurrentRun
    return run


def find_run() -> Run | None:
    return _current.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Makes `run` the current one for the time of its body."""
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)
