"""One action's life without Celery, through the same operations that the fleet calls, each timed."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from acp_tasks.bootstrap import new_id
from acp_tasks.message import arguments_json, digest, pack
from benchmarks.servers import POLICY
from governance.clock import SystemClock
from governance.core.actions import Lease, Submission
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admitted
from governance.operations.context import Governance
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.submit import Recorded, submit
from governance.policy_file import canonical, parse_policy, read_policy
from governance.store.engine import Store

T = TypeVar("T")

NAME = "bench.noop"


@dataclass
class Timings:
    """Milliseconds, by operation."""

    submit: list[float] = field(default_factory=list)
    admit: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)


class Life:
    """Takes actions from submission to their end on one database."""

    def __init__(self, url: str, *, policy: str | None = None, pool_size: int = 5) -> None:
        text = policy if policy is not None else read_policy(POLICY)
        self.gov = Governance(
            store=Store(url, pool_size=pool_size),
            clock=SystemClock(),
            policy=parse_policy(text),
            policy_source=canonical(text),
            new_id=new_id,
        )
        self.lease = Lease(f"bench#{new_id()}", "1")
        self.timings = Timings()

    def close(self) -> None:
        self.gov.store.close()

    def cycle(self, number: int = 0) -> None:
        """Submit, admit, finish."""
        submission = make_submission(number)
        recorded = _timed(self.timings.submit, lambda: submit(self.gov, submission))
        assert isinstance(recorded, Recorded), recorded
        arrival = Arrival(
            submission.action_id,
            submission.stream,
            submission.digest,
            {"number": number},
            redelivered=False,
            # As a worker reads it from the message.
            said=replace(submission, message=""),
        )
        admission = _timed(self.timings.admit, lambda: admit(self.gov, arrival, self.lease))
        assert isinstance(admission, Admitted), admission
        ending = make_finish(self.gov, admission, str(number))
        finished = _timed(self.timings.finish, lambda: finish(self.gov, ending))
        assert isinstance(finished, Settled), finished


def make_submission(number: int) -> Submission:
    """What the governed no-op task submits."""
    action_id = new_id()
    arguments = arguments_json(NAME, [number], {}, 256 * 1024)
    options = {"headers": {"acp": {"command_id": action_id, "stream": "default", "correlation_id": action_id}}}
    return Submission(
        action_id=action_id,
        command_id=action_id,
        name=NAME,
        digest=digest(NAME, arguments),
        message=pack(NAME, arguments, options),
        stream="default",
        risk=Risk.LOW,
        idempotent=True,
        correlation_id=action_id,
        cost_micros=1000,
        tokens=10,
        arguments={"number": number},
    )


def make_finish(gov: Governance, admission: Admitted, result: str) -> Finish:
    return Finish(
        ref=admission.ref,
        holds=admission.holds,
        outcome=Succeeded(result),
        usage=Usage(cost_micros=1000, tokens=10),
        actor="worker:bench",
        at_us=gov.clock.now_us(),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def _timed(kept: list[float], operation: Callable[[], T]) -> T:
    began_s = time.perf_counter()
    answer = operation()
    kept.append((time.perf_counter() - began_s) * 1000)
    return answer
