"""Calls of models inside actions: what each used, and what that cost at which prices."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text

from governance.core.model_calls import CallFlag
from governance.core.models import Tier
from governance.store.schema.base import metadata

_KNOWN_TIERS = ", ".join(f"'{tier}'" for tier in Tier)
_KNOWN_FLAGS = ", ".join(f"'{flag}'" for flag in CallFlag)

model_calls = Table(
    "model_calls",
    metadata,
    Column("id", Text, primary_key=True),
    Column("action_id", Text, ForeignKey("actions.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("tier", Text),  # null: an override let a model through that no tier names
    Column("override_id", Text),  # the exception of the policy by which it was used
    Column("tokens_input", BigInteger, nullable=False),  # with the cached ones
    Column("tokens_cached", BigInteger, nullable=False),
    Column("tokens_output", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    # Micro-USD per million tokens, and the table they are from; null: nobody knows a price.
    Column("price_input", BigInteger),
    Column("price_cached", BigInteger),
    Column("price_output", BigInteger),
    Column("price_table", Text),
    Column("flag", Text),
    Column("at_us", BigInteger, nullable=False),
    CheckConstraint(f"tier IN ({_KNOWN_TIERS})", name="tier_known"),
    CheckConstraint(f"flag IN ({_KNOWN_FLAGS})", name="flag_known"),
    CheckConstraint(
        "tokens_input >= 0 AND tokens_cached >= 0 AND tokens_output >= 0 AND cost_micros >= 0",
        name="amounts_not_negative",
    ),
    CheckConstraint("(price_table IS NULL) = (price_input IS NULL)", name="prices_from_a_table"),
)
Index("ix_model_calls_at_us", model_calls.c.at_us)
