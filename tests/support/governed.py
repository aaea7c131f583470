"""A governance over a real database, with a clock that a test moves by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acp_tasks.bootstrap import new_id
from governance.core.actions import Lease, Submission
from governance.core.instants import SECOND_US
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.operations.admit import Arrival, admit
from governance.operations.answers import Admission, Admitted
from governance.operations.context import Governance, Limits
from governance.operations.finish import Finish, Finished, Outcome, Succeeded, finish
from governance.operations.submit import Submitted, submit
from governance.policy_file import canonical, parse_policy
from governance.store import migrate
from governance.store.accounts import ACCOUNTS
from governance.store.engine import Store

POLICY = """
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {cost_usd: "1.00", actions: 1000, tokens: 100000}}
  small: {window: 1h, timezone: UTC, limits: {cost_usd: "0.10", actions: 10, tokens: 1000}}
  striped: {window: 1h, timezone: UTC, limits: {cost_usd: "0.10", actions: 100000}, stripes: 16}
  patient: {window: 1h, timezone: UTC, limits: {actions: 1}, on_exhausted: defer}
  graceful: {window: 1h, timezone: UTC, limits: {}, grace: 10m}
models:
  tiers: {standard: "small-*", premium: "large-*", restricted: "secret-*"}
  access: [{tier: standard, match: {}}, {tier: premium, match: {team: t1, risk: [low, medium]}}]
  overrides:
    - {id: trial, match: {user: u9}, model: "secret-*", effect: allow, reason: a trial, until: 2028-01-01T00:00:00Z}
  prices: {"small-*": {input: "1.00", cached: "0.50", output: "4.00"}}
rules:
  - {id: no-secrets, match: {resource: "file:secret*"}, effect: deny, reason: "secrets stay secret"}
  - {id: never, match: {risk: critical}, effect: deny, reason: "too dangerous"}
  - {id: ask, match: {risk: high}, effect: approval, reason: "a person decides", approval: {timeout: 15m}}
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
  - {id: no-bulk, match: {action: mail.bulk}, effect: steer, guidance: "Answer the case.", suggest: [case.reply]}
"""
LEASE = Lease("worker-1", "child-1")
ANN = Principal("ann", frozenset({"approver", "operator"}))
BOB = Principal("bob", frozenset({"approver"}))


@dataclass
class ManualClock:
    """Stands still until a test moves it."""

    at_us: int = 1_800_000_000 * SECOND_US

    def now_us(self) -> int:
        return self.at_us

    def span_us(self, real_s: float) -> int:
        return int(real_s * SECOND_US)

    def real_s(self, span_us: int) -> float:
        return span_us / SECOND_US

    def pass_s(self, seconds: float) -> None:
        self.at_us += int(seconds * SECOND_US)


def make_governance(url: str, *, policy: str = POLICY, clock: Any = None, limits: Limits | None = None) -> Governance:
    """Over a migrated database; the caller closes its store."""
    store = Store(url)
    migrate.upgrade(store)
    return Governance(
        store=store,
        clock=clock or ManualClock(),
        policy=parse_policy(policy),
        policy_source=canonical(policy),
        new_id=new_id,
        limits=limits or Limits(),
    )


def submission(**changes: Any) -> Submission:
    """A small low-risk action; every field can be changed."""
    action_id = changes.pop("action_id", None) or new_id()
    base = Submission(
        action_id=action_id,
        command_id=action_id,
        name="case.reply",
        digest="digest-1",
        message='{"task":"case.reply","arguments":[[],{}],"options":{}}',
        stream="default",
        risk=Risk.LOW,
        idempotent=True,
        correlation_id=action_id,
        cost_micros=1000,
        tokens=10,
    )
    return replace(base, **changes)


@dataclass
class Desk:
    """The operations on one governance, as the tests speak of them."""

    gov: Governance
    lease: Lease = field(default=LEASE)

    def submit(self, **changes: Any) -> Submission:
        made = submission(**changes)
        self.submitted: Submitted = submit(self.gov, made)
        return made

    def arrive(
        self, made: Submission, *, lease: Lease | None = None, redelivered: bool = False, **changes: Any
    ) -> Admission:
        arrival = Arrival(made.action_id, made.stream, made.digest, made.arguments or {}, redelivered)
        arrival = replace(arrival, **changes)
        if not redelivered and "said" not in changes:
            # As from a message: without itself.
            arrival = replace(arrival, said=replace(made, digest=arrival.digest, message=""))
        return admit(self.gov, arrival, lease or self.lease)

    def admitted(self, made: Submission) -> Admitted:
        admission = self.arrive(made)
        assert isinstance(admission, Admitted), admission
        return admission

    def finish(self, run: Admitted, outcome: Outcome | None = None, usage: Usage | None = None) -> Finished:
        return finish(
            self.gov,
            Finish(
                ref=run.ref,
                holds=run.holds,
                outcome=outcome or Succeeded("null"),
                usage=usage or Usage(),
                actor="test",
                at_us=self.gov.clock.now_us(),
            ),
        )

    def state(self, made: Submission) -> str:
        return str(self.gov.store.read("SELECT state FROM actions WHERE id = :id", {"id": made.action_id})[0][0])

    def account(self, unit: str, stream: str = "default") -> Mapping[str, int]:
        row = self.gov.store.read(
            f"""SELECT a.limit_amount, a.posted, a.held FROM {ACCOUNTS} a JOIN sessions s ON s.id = a.scope_id
                WHERE s.stream = :stream AND a.unit = :unit ORDER BY a.window_start_us DESC LIMIT 1""",
            {"stream": stream, "unit": unit},
        )[0]
        return {"limit": row[0], "posted": row[1], "held": row[2]}


def policy_file(folder: Path, text: str = POLICY) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path
