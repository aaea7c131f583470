"""What happened: events, what came of each hour of them, and alerts."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from governance.store.schema.base import Serial, metadata

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
