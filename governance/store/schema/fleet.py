"""The fleet: its workers and schedulers, the ticks they claim, and the drills it goes through."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Table, Text

from governance.store.schema.base import metadata

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

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),  # <nodename>#<boot>
    Column("pid", Integer, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
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
