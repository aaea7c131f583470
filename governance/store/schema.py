"""The tables. What can be said as a constraint is said here; times are UTC microseconds, money is micro-USD.

Events and entries are append-only: triggers (`governance.store.guards`) refuse to change or delete them.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from governance.core.actions import State
from governance.core.ledger import EntryKind, Flag, Unit
from governance.core.policy import Risk
from governance.core.tickets import TicketState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _one_of(column: str, values: type[State | EntryKind | Flag | Unit | TicketState | Risk]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


policies = Table(
    "policies",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("source", Text, nullable=False),  # canonical JSON; parsing it again gives the same hash
    Column("created_us", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),  # <stream>@<window start>
    Column("stream", Text, nullable=False),
    Column("window_start_us", BigInteger, nullable=False),
    Column("window_end_us", BigInteger, nullable=False),
    Column("policy_hash", Text, ForeignKey("policies.hash"), nullable=False),
    Column("opened_us", BigInteger, nullable=False),
    UniqueConstraint("stream", "window_start_us"),
    CheckConstraint("window_end_us > window_start_us", name="window_forward"),
)

actions = Table(
    "actions",
    metadata,
    Column("id", Text, primary_key=True),  # the Celery task id
    Column("command_id", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),  # of name and exact arguments
    Column("name", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("session_id", Text, ForeignKey("sessions.id"), nullable=False),
    # queued    -> running (admit), parked, deferred, denied
    # parked    -> queued (approved), denied (refused or nobody answered)
    # deferred  -> queued (due)
    # running   -> succeeded, failed, queued (retry, abandon, reclaim), in_doubt (reclaim)
    # in_doubt  -> queued, succeeded, failed (a person)
    # succeeded, failed, denied: terminal
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),  # the fencing number: admissions so far
    Column("idempotent", Boolean, nullable=False),
    Column("direct", Boolean, nullable=False),  # its caller waits for it in the same process: never published
    Column("agent_id", Text),
    Column("user", Text),
    Column("team", Text),
    Column("org", Text),
    Column("risk", Text, nullable=False),
    Column("resource", Text),
    Column("cost_micros", BigInteger, nullable=False),  # what an attempt holds
    Column("tokens", BigInteger, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("message", Text, nullable=False),  # what is published again
    Column("rule", Text),  # the rule behind the last verdict that was not "allow", and why
    Column("reason", Text),
    Column("guidance", Text),
    Column("suggest", Text),  # JSON list
    Column("ticket_id", Text),  # the ticket that counts now
    Column("lease_worker", Text),
    Column("lease_child", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("published_us", BigInteger),  # of the last message; null: publish now
    Column("publish_count", Integer, nullable=False),
    Column("not_before_us", BigInteger),
    Column("expires_us", BigInteger),  # not admitted after it
    Column("started_us", BigInteger),
    Column("finished_us", BigInteger),
    Column("delivered_us", BigInteger),  # the outcome reached Celery; a duplicate message says nothing again
    Column("result", Text),  # JSON
    Column("error_type", Text),
    Column("error", Text),
    _one_of("state", State),
    _one_of("risk", Risk),
    CheckConstraint("attempt >= 0", name="attempt_counts"),
    CheckConstraint("cost_micros >= 0 AND tokens >= 0", name="amounts_not_negative"),
    CheckConstraint("(state = 'running') = (lease_worker IS NOT NULL)", name="lease_while_running"),
    CheckConstraint("state <> 'deferred' OR not_before_us IS NOT NULL", name="deferred_until"),
    CheckConstraint(
        "delivered_us IS NULL OR state IN ('succeeded', 'failed', 'denied')", name="delivered_when_terminal"
    ),
    CheckConstraint("state <> 'parked' OR ticket_id IS NOT NULL", name="parked_with_ticket"),
)
# Whatever Celery has not been told the end of: live actions, and outcomes decided outside a worker.
_undelivered = text("delivered_us IS NULL")
Index(
    "ix_actions_live",
    actions.c.state,
    actions.c.created_us,
    postgresql_where=_undelivered,
    sqlite_where=_undelivered,
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("action_id", Text, ForeignKey("actions.id"), nullable=False, index=True),
    Column("digest", Text, nullable=False),
    # pending  -> approved, denied, expired
    # approved -> consumed (by the admission of its action)
    Column("state", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("decided_us", BigInteger),
    Column("decided_by", Text),
    Column("decision_reason", Text),
    _one_of("state", TicketState),
    CheckConstraint("state = 'pending' OR decided_us IS NOT NULL", name="decision_dated"),
)
# An approval that no longer fits (other arguments, another rule) stays as it is; the request that replaces it is new.
_pending = text("state = 'pending'")
Index("uq_tickets_asked", tickets.c.action_id, unique=True, postgresql_where=_pending, sqlite_where=_pending)
Index("ix_tickets_pending", tickets.c.expires_us, postgresql_where=_pending, sqlite_where=_pending)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),  # <scope>:<window>:<unit>; locked in this order
    Column("scope", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("window_start_us", BigInteger, nullable=False),
    Column("window_end_us", BigInteger, nullable=False),
    Column("limit_amount", BigInteger),  # null: unlimited
    Column("posted", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    UniqueConstraint("scope", "scope_id", "unit", "window_start_us"),
    _one_of("unit", Unit),
    CheckConstraint("posted >= 0 AND held >= 0", name="amounts_not_negative"),
    CheckConstraint("limit_amount >= 0", name="limit_not_negative"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("action_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # hold, then exactly one of post, void, expire
    Column("held_delta", BigInteger, nullable=False),
    Column("posted_delta", BigInteger, nullable=False),
    Column("flag", Text),
    Column("at_us", BigInteger, nullable=False),
    _one_of("kind", EntryKind),
    _one_of("flag", Flag),
    CheckConstraint(
        "CASE WHEN kind = 'hold' THEN held_delta >= 0 AND posted_delta = 0 ELSE held_delta <= 0 END",
        name="two_phases",
    ),
    CheckConstraint("posted_delta >= 0", name="posts_add"),
)
# One hold and one closing entry for each account and attempt.
_hold = text("kind = 'hold'")
_closing = text("kind <> 'hold'")
_once = (entries.c.action_id, entries.c.attempt, entries.c.account_id)
Index("uq_entries_hold", *_once, unique=True, postgresql_where=_hold, sqlite_where=_hold)
Index("uq_entries_closing", *_once, unique=True, postgresql_where=_closing, sqlite_where=_closing)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("session_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("action_id", Text),
    Column("attempt", Integer),
    Column("state", Text),  # the action's state after the event
    Column("payload", Text, nullable=False),  # canonical JSON
    Column("seq", BigInteger),  # set once, by the sealer: gapless in its session, from 1
    Column("hash", Text),
    CheckConstraint("(seq IS NULL) = (hash IS NULL)", name="sealed_whole"),
)
_sealed = text("seq IS NOT NULL")
Index(
    "uq_events_seq",
    events.c.session_id,
    events.c.seq,
    unique=True,
    postgresql_where=_sealed,
    sqlite_where=_sealed,
)
_unsealed = text("seq IS NULL")
Index("ix_events_unsealed", events.c.id, postgresql_where=_unsealed, sqlite_where=_unsealed)
Index("ix_events_action", events.c.action_id, events.c.id)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),  # <nodename>#<boot>
    Column("pid", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("suspected_us", BigInteger),  # first sweep that found the heartbeat lapsed; a heartbeat clears it
    Column("stopped_us", BigInteger),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),  # command_id of a decision, resolution, ...
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("answer", Text, nullable=False),  # JSON; repeated word for word
    Column("at_us", BigInteger, nullable=False),
)

ticks = Table(
    "ticks",
    metadata,
    Column("job", Text, primary_key=True),
    Column("tick", BigInteger, primary_key=True, autoincrement=False),
    Column("claimed_us", BigInteger, nullable=False),
)
