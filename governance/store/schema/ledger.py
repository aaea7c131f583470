"""The ledger: accounts, and the entries that they are the sums of."""

from sqlalchemy import (
    BigInteger,
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

from governance.core.ledger import EntryKind, Flag, Unit
from governance.store.schema.base import Serial, metadata, one_of

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
    one_of("unit", Unit),
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
    one_of("kind", EntryKind),
    one_of("flag", Flag),
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
