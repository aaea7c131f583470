"""The tables. What can be said as a constraint is said here; times are UTC microseconds, money is micro-USD.

Events and entries are append-only: triggers (`governance.store.guards`) refuse to change them, and to delete any that
no anchor stands for.
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
from governance.core.switches import Mode, Scope
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


def _one_of(
    column: str, values: type[State | EntryKind | Flag | Unit | TicketState | Risk | Scope | Mode]
) -> CheckConstraint:
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
    Column("closed_us", BigInteger),  # nothing of it is left to be done
    Column("summary", Text),  # JSON: what happened in it
    Column("epoch", BigInteger),  # of its early turn or of its closing
    UniqueConstraint("stream", "window_start_us"),
    CheckConstraint("window_end_us > window_start_us", name="window_forward"),
)
_unclosed = text("closed_us IS NULL")
Index(
    "ix_sessions_unclosed",
    sessions.c.window_end_us,
    postgresql_where=_unclosed,
    sqlite_where=_unclosed,
)
Index("ix_sessions_epoch", sessions.c.epoch)

# What is left of a session's history that was pruned: where it ended. Written before anything is deleted; from then on
# the guards let exactly that be deleted, until all of it is gone. A session that goes on afterwards may have several.
anchors = Table(
    "anchors",
    metadata,
    Column("session_id", Text, ForeignKey("sessions.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # of the last event that was pruned
    Column("hash", Text, nullable=False),  # of that event: the next one is chained to it
    Column("events", BigInteger, nullable=False),
    Column("pruned_us", BigInteger, nullable=False),
    Column("recorded_in", Text, nullable=False),  # the session whose trail says so
    Column("cleared_us", BigInteger),  # everything it stands for has been deleted
    CheckConstraint("seq > 0 AND events > 0", name="stands_for_events"),
)
_uncleared = text("cleared_us IS NULL")
Index("ix_anchors_uncleared", anchors.c.session_id, postgresql_where=_uncleared, sqlite_where=_uncleared)

actions = Table(
    "actions",
    metadata,
    Column("id", Text, primary_key=True),  # the Celery task id
    Column("command_id", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),  # of name and exact arguments
    Column("name", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("session_id", Text, ForeignKey("sessions.id"), nullable=False),
    # queued    -> running (admit), parked, deferred, denied, cancelled
    # parked    -> queued (approved), denied (refused or nobody answered), cancelled
    # deferred  -> queued (due, or its pause is over), cancelled
    # running   -> succeeded, failed, cancelled (stopped), queued (retry, abandon, reclaim), in_doubt (reclaim, cut)
    # in_doubt  -> queued, succeeded, failed (a person)
    # succeeded, failed, denied, cancelled: terminal
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
    Column("model", Text),
    Column("cost_micros", BigInteger, nullable=False),  # what an attempt holds
    Column("tokens", BigInteger, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("message", Text, nullable=False),  # what is published again
    Column("rule", Text),  # the rule behind the last verdict that was not "allow", and why
    Column("reason", Text),
    Column("guidance", Text),
    Column("suggest", Text),  # JSON list
    Column("ticket_id", Text),  # the ticket that counts now
    Column("grant_id", Text),  # the standing approval that an admission of it used
    Column("switch_id", Text),  # the pause that it waits for the end of
    Column("superseded_by", Text),  # the checkpoint from before it that its stream was restored from
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
    # Where its history was cut when an earlier session of it was pruned; null: all of it is there.
    Column("pruned_state", Text),
    Column("pruned_attempt", Integer),
    _one_of("state", State),
    _one_of("risk", Risk),
    CheckConstraint("attempt >= 0", name="attempt_counts"),
    CheckConstraint("cost_micros >= 0 AND tokens >= 0", name="amounts_not_negative"),
    CheckConstraint("(state = 'running') = (lease_worker IS NOT NULL)", name="lease_while_running"),
    CheckConstraint("state <> 'deferred' OR not_before_us IS NOT NULL", name="deferred_until"),
    CheckConstraint(
        "delivered_us IS NULL OR state IN ('succeeded', 'failed', 'denied', 'cancelled')",
        name="delivered_when_terminal",
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
Index("ix_actions_session", actions.c.session_id, actions.c.delivered_us)
# What the relay has to publish at once; few at any time.
_unpublished = text("delivered_us IS NULL AND published_us IS NULL")
Index(
    "ix_actions_unpublished",
    actions.c.created_us,
    postgresql_where=_unpublished,
    sqlite_where=_unpublished,
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("action_id", Text, ForeignKey("actions.id"), nullable=False, index=True),
    Column("digest", Text, nullable=False),
    # pending  -> approved, denied, expired, cancelled (with its action)
    # approved -> consumed (by the admission of its action)
    Column("state", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # What an approval is bound to besides the digest, and who may give it at which level.
    Column("policy_hash", Text, nullable=False),
    Column("chain", Text, nullable=False),  # canonical JSON of governance.core.approvals.Chain
    Column("chain_hash", Text, nullable=False),
    Column("level", Integer, nullable=False),  # from 0
    Column("votes", Text, nullable=False),  # JSON list: who approved so far
    Column("step", Integer, nullable=False),  # events about it so far, the request included; guards every change
    Column("told_step", Integer, nullable=False),  # the last of them that the webhook has heard of
    Column("requested_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),  # the end of its level
    Column("expires_us", BigInteger, nullable=False),  # the end of its last level
    Column("decided_us", BigInteger),
    Column("decided_by", Text),
    Column("decision_reason", Text),
    _one_of("state", TicketState),
    CheckConstraint("state = 'pending' OR decided_us IS NOT NULL", name="decision_dated"),
    CheckConstraint("level >= 0 AND told_step <= step", name="steps_forward"),
    CheckConstraint("due_us <= expires_us", name="due_in_time"),
)
# An approval that no longer fits (other arguments, another rule) stays as it is; the request that replaces it is new.
_pending = text("state = 'pending'")
Index("uq_tickets_asked", tickets.c.action_id, unique=True, postgresql_where=_pending, sqlite_where=_pending)
Index("ix_tickets_pending", tickets.c.due_us, postgresql_where=_pending, sqlite_where=_pending)
Index("ix_tickets_oldest", tickets.c.requested_us, postgresql_where=_pending, sqlite_where=_pending)
_untold = text("told_step < step")
Index("ix_tickets_untold", tickets.c.id, postgresql_where=_untold, sqlite_where=_untold)

# A standing approval: later actions like the approved one need no person while it lasts.
grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("ticket_id", Text, ForeignKey("tickets.id"), nullable=False, index=True),  # the decision that gave it
    Column("rule", Text, nullable=False),
    Column("chain_hash", Text, nullable=False),
    Column("action_name", Text, nullable=False),
    Column("agent_id", Text),
    Column("user", Text),
    Column("session_id", Text),  # null: in any session
    Column("resource", Text),  # a glob; null: any resource
    Column("max_uses", Integer),
    Column("uses", Integer, nullable=False),
    Column("max_cost_micros", BigInteger),
    Column("cost_micros", BigInteger, nullable=False),  # held under it so far
    Column("until_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_us", BigInteger),
    Column("revoked_by", Text),
    Column("revoke_reason", Text),
    CheckConstraint("session_id IS NOT NULL OR until_us IS NOT NULL", name="ends"),
    CheckConstraint("uses >= 0 AND (max_uses IS NULL OR uses <= max_uses)", name="uses_bounded"),
    CheckConstraint(
        "cost_micros >= 0 AND (max_cost_micros IS NULL OR cost_micros <= max_cost_micros)", name="cost_bounded"
    ),
)
_usable = text("revoked_us IS NULL")
Index("ix_grants_usable", grants.c.rule, grants.c.action_name, postgresql_where=_usable, sqlite_where=_usable)

# Engaged from `engaged_us` until `released_us`. Every engagement and release takes the next epoch, and an admission
# writes only while the epoch is the one it decided at.
switches = Table(
    "switches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("scope_id", Text, nullable=False),  # '*' for the system
    Column("mode", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("grace_us", BigInteger, nullable=False),  # between the interrupt and the kill
    Column("engaged_us", BigInteger, nullable=False),
    Column("engaged_by", Text, nullable=False),
    Column("released_us", BigInteger),
    Column("released_by", Text),
    Column("release_reason", Text),
    Column("epoch", BigInteger, nullable=False, unique=True),  # of its last change
    _one_of("scope", Scope),
    _one_of("mode", Mode),
    CheckConstraint("(released_us IS NULL) = (release_reason IS NULL)", name="release_with_reason"),
)
_engaged = text("released_us IS NULL")
Index(
    "uq_switches_engaged",
    switches.c.scope,
    switches.c.scope_id,
    switches.c.mode,
    unique=True,
    postgresql_where=_engaged,
    sqlite_where=_engaged,
)

# What proves who decides. The secret itself is shown once and never kept.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("hash", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("revoked_by", Text),
)

drills = Table(
    "drills",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("started_by", Text, nullable=False),
    Column("finished_us", BigInteger),
    Column("passed", Boolean),
    Column("report", Text),  # JSON: steps, figures, threshold, evidence
    CheckConstraint("(finished_us IS NULL) = (passed IS NULL)", name="finished_with_a_verdict"),
)
Index("ix_drills_kind_started_us", drills.c.kind, drills.c.started_us)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),  # says what it is about, so that the same finding alerts once
    Column("kind", Text, nullable=False),
    Column("payload", Text, nullable=False),  # canonical JSON
    Column("at_us", BigInteger, nullable=False),
    Column("told_us", BigInteger),  # the webhook has heard of it
    Column("pushed_us", BigInteger),  # apprise has passed it on
    # What it is about while that lasts: it stands until it is cleared, and is not raised a second time meanwhile.
    Column("finding", Text),
    Column("cleared_us", BigInteger),
)
_standing = text("finding IS NOT NULL AND cleared_us IS NULL")
Index("uq_alerts_standing", alerts.c.finding, unique=True, postgresql_where=_standing, sqlite_where=_standing)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("session_id", Text, ForeignKey("sessions.id"), nullable=False),
    Column("made_us", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("action_id", Text),  # the run that saved its agent's state; null: taken by the clock
    Column("cycle", BigInteger),
    Column("event_id", BigInteger, nullable=False),  # the last event written before it
    Column("control", Text, nullable=False),  # JSON: open tickets, switches, balances
    Column("state", Text),  # JSON: what the agent saved, here or in the checkpoint before
    Column("digest", Text, nullable=False),  # of position, control and state
    Column("superseded_us", BigInteger),
    Column("superseded_by", Text),  # the earlier checkpoint that the stream was restored from
)
Index("ix_checkpoints_stream", checkpoints.c.stream, checkpoints.c.made_us)

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
Index("ix_accounts_window_end_us", accounts.c.window_end_us)

entries = Table(
    "entries",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False, index=True),
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
# What happened in an hour; instants grow with the rows, so that the index grows at its end only.
Index("ix_events_at_us", events.c.at_us)

# What came of each hour of the fleet's clock, for longer than its events are kept. Every figure is a sum: hours and
# streams add up. What is not there is 0.
rollups = Table(
    "rollups",
    metadata,
    Column("hour_us", BigInteger, ForeignKey("rollup_hours.hour_us"), primary_key=True, autoincrement=False),
    Column("stream", Text, primary_key=True),  # '*' for the fleet itself
    Column("figure", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# The hours that are rolled up; between two of them nothing happened.
rollup_hours = Table(
    "rollup_hours",
    metadata,
    Column("hour_us", BigInteger, primary_key=True, autoincrement=False),
    Column("events", BigInteger, nullable=False),  # of the hour, then; more of them now: it is rolled up again
    Column("rolled_us", BigInteger, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),  # <nodename>#<boot>
    Column("pid", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("suspected_us", BigInteger),  # first sweep that found the heartbeat lapsed; a heartbeat clears it
    Column("stopped_us", BigInteger),
    # What a worker says of itself; null for a process that runs an action without being a worker.
    Column("host", Text),
    Column("queues", Text),  # JSON list: what it consumes
    Column("slots", Integer),  # actions at a time, as of the last heartbeat
    Column("ready_us", BigInteger),  # it has looked for what was left behind, and takes traffic
)

# Schedulers that are alive; each periodic job claims its tick, so any number of them does the work once.
beats = Table(
    "beats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("stopped_us", BigInteger),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),  # command_id of a decision, resolution, ...
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("answer", Text, nullable=False),  # JSON; repeated word for word
    Column("at_us", BigInteger, nullable=False, index=True),
)

ticks = Table(
    "ticks",
    metadata,
    Column("job", Text, primary_key=True),
    Column("tick", BigInteger, primary_key=True, autoincrement=False),
    Column("claimed_us", BigInteger, nullable=False),
    Column("finished_us", BigInteger),  # null: it runs, or it failed
    Column("looked", BigInteger),  # how much a scan looked at; null: its job does not say
)
Index("ix_ticks_claimed_us", ticks.c.claimed_us)
