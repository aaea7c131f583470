"""What people decide: tickets and the grants they give, switches, the tokens that prove who decides, and commands."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from governance.core.switches import Mode, Scope
from governance.core.tickets import TicketState
from governance.store.schema.base import metadata, one_of

tickets = Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("action_id", Text, ForeignKey("actions.id"), nullable=False, index=True),
    Column("digest", Text, nullable=False),
    # pending  -> approved, denied, expired, cancelled (with its action, or when nobody needs to answer)
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
    one_of("state", TicketState),
    CheckConstraint("state = 'pending' OR decided_us IS NOT NULL", name="decision_dated"),
    CheckConstraint("level >= 0 AND told_step <= step", name="steps_forward"),
    CheckConstraint("due_us <= expires_us", name="due_in_time"),
)
# An approval that no longer fits (other arguments, another rule) stays as it is; the request that replaces it is new.
_pending = text("state = 'pending'")
Index("uq_tickets_asked", tickets.c.action_id, unique=True, postgresql_where=_pending, sqlite_where=_pending)
Index("ix_tickets_pending", tickets.c.due_us, postgresql_where=_pending, sqlite_where=_pending)
Index(
    "ix_tickets_expiring",
    tickets.c.expires_us,
    tickets.c.id,
    postgresql_where=_pending,
    sqlite_where=_pending,
)
Index("ix_tickets_oldest", tickets.c.requested_us, postgresql_where=_pending, sqlite_where=_pending)
_untold = text("told_step < step")
_decided = text("decided_us IS NOT NULL")
Index("ix_tickets_decided", tickets.c.rule, tickets.c.decided_us, postgresql_where=_decided, sqlite_where=_decided)
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
    one_of("scope", Scope),
    one_of("mode", Mode),
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

commands = Table(
    "commands",
    metadata,
    Column("id", Text, primary_key=True),  # command_id of a decision, resolution, ...
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("answer", Text, nullable=False),  # JSON; repeated word for word
    Column("at_us", BigInteger, nullable=False, index=True),
)
