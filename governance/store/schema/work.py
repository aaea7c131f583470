"""What is asked for: sessions under their policies, the actions in them, and what is kept of both."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from governance.core.actions import State
from governance.core.policy import Risk
from governance.store.schema.base import metadata, one_of

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
    Column("filled", Text),  # parts of the identity that the directory said and the caller did not, by comma
    Column("signature", Text),  # of whoever submitted it, see governance.core.signing; null: unsigned
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
    one_of("state", State),
    one_of("risk", Risk),
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
# What an agent did last, for whoever decides on its next request.
_of_agent = text("agent_id IS NOT NULL")
Index("ix_actions_agent", actions.c.agent_id, actions.c.created_us, postgresql_where=_of_agent, sqlite_where=_of_agent)
# What the relay has to publish at once; few at any time.
_unpublished = text("delivered_us IS NULL AND published_us IS NULL")
Index(
    "ix_actions_unpublished",
    actions.c.created_us,
    postgresql_where=_unpublished,
    sqlite_where=_unpublished,
)

# A message whose command_id made another action: it waits for that one's outcome. Deleted when it is told.
echoes = Table(
    "echoes",
    metadata,
    Column("id", Text, primary_key=True),  # the Celery task id that somebody waits for
    Column("first_id", Text, nullable=False),  # the action that the command_id made
    Column("message", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("published_us", BigInteger),  # of the last message; null: publish when the first action has ended
    Column("publish_count", Integer, nullable=False),
)

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
