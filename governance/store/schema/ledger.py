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
    cast,
    func,
    select,
    text,
)

from governance.core.ledger import STRIPES_MAX, EntryKind, Flag, Unit
from governance.store.schema.base import Serial, metadata, one_of

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),  # <scope>:<window>:<unit>, and #<stripe> of all stripes but the first
    # An account in several rows is their sum. The limit of each is its share; the first knows what they sum to.
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("stripe", Integer, nullable=False),
    Column("stripes", Integer, nullable=False),  # how many rows the account has
    Column("scope", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("window_start_us", BigInteger, nullable=False),
    Column("window_end_us", BigInteger, nullable=False),
    Column("limit_amount", BigInteger),  # null: unlimited
    Column("account_limit", BigInteger),
    Column("posted", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("raised", BigInteger),  # of its limit, what raises that last have added; null: nothing
    Column("pruned_us", BigInteger),  # its entries are gone: what they summed to is what the columns say
    # Of a budget whose window never ends: closed holds until then may be gone, and what those had posted.
    Column("summed_us", BigInteger),
    Column("summed", BigInteger),
    UniqueConstraint("scope", "scope_id", "unit", "window_start_us", "stripe"),
    one_of("unit", Unit),
    CheckConstraint("posted >= 0 AND held >= 0", name="amounts_not_negative"),
    CheckConstraint("limit_amount >= 0", name="limit_not_negative"),
    # PostgreSQL reads and compiles every check of a table anew for each statement that writes to it: few, and short.
    CheckConstraint(
        f"stripe >= 0 AND stripe < stripes AND stripes <= {STRIPES_MAX} AND (id = account) = (stripe = 0)",
        name="stripe_known",
    ),
)
Index("ix_accounts_window_end_us", accounts.c.window_end_us)

_account = (
    accounts.c.scope,
    accounts.c.scope_id,
    accounts.c.unit,
    accounts.c.window_start_us,
    accounts.c.window_end_us,
)
#: The accounts as everybody means them, each the sum of its rows. Whoever reads accounts and not rows reads this.
totals = (
    select(
        accounts.c.account.label("id"),
        *_account,
        *(cast(func.sum(accounts.c[name]), BigInteger).label(name) for name in ("limit_amount", "posted", "held")),
        func.max(accounts.c.stripes).label("stripes"),
    )
    .group_by(accounts.c.account, *_account)
    .subquery("totals")
)

entries = Table(
    "entries",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("action_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    # A hold, or more of it later, any number of times; then exactly one of post, void, expire.
    Column("kind", Text, nullable=False),
    Column("held_delta", BigInteger, nullable=False),
    Column("posted_delta", BigInteger, nullable=False),
    Column("flag", Text),
    Column("at_us", BigInteger, nullable=False),
    one_of("kind", EntryKind),
    one_of("flag", Flag),
    CheckConstraint(
        "CASE WHEN kind IN ('hold', 'top_up') THEN held_delta >= 0 AND posted_delta = 0 ELSE held_delta <= 0 END",
        name="two_phases",
    ),
    CheckConstraint("posted_delta >= 0", name="posts_add"),
)
# One hold and one closing entry for each account and attempt.
_hold = text("kind = 'hold'")
_top_up = text("kind = 'top_up'")
_closing = text("kind IN ('post', 'void', 'expire')")
_once = (entries.c.action_id, entries.c.attempt, entries.c.account_id)
Index("uq_entries_hold", *_once, unique=True, postgresql_where=_hold, sqlite_where=_hold)
Index("ix_entries_top_up", *_once[:2], postgresql_where=_top_up, sqlite_where=_top_up)
Index("uq_entries_closing", *_once, unique=True, postgresql_where=_closing, sqlite_where=_closing)

# Budgets that people set: they count before the policy's of the same id. Every change of one takes the next epoch.
budgets = Table(
    "budgets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("config", Text),  # canonical JSON; null: taken back, and the policy's counts again
    Column("reason", Text, nullable=False),
    Column("set_us", BigInteger, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False, unique=True),
)

# More than the limit, for a while: on the accounts that are open when it is given, and on those opened until it ends.
raises = Table(
    "raises",
    metadata,
    Column("id", Text, primary_key=True),
    Column("budget_id", Text, nullable=False),
    Column("who", Text),  # whose account; null: everybody's
    Column("cost_micros", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raised_us", BigInteger, nullable=False),
    Column("raised_by", Text, nullable=False),
    Column("ended_us", BigInteger),
    Column("epoch", BigInteger, nullable=False, unique=True),  # of its last change
    CheckConstraint("cost_micros >= 0 AND tokens >= 0 AND cost_micros + tokens > 0", name="adds"),
    CheckConstraint("until_us > raised_us", name="ends_later"),
)
_lasting = text("ended_us IS NULL")
Index("ix_raises_lasting", raises.c.until_us, postgresql_where=_lasting, sqlite_where=_lasting)
