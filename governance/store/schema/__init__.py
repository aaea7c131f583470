"""The tables. What can be said as a constraint is said here; times are UTC microseconds, money is micro-USD.

Events and entries are append-only: triggers (`governance.store.guards`) refuse to change them, and to delete any that
no anchor stands for.
"""

from governance.store.schema import decisions, fleet, identity, ledger, models, trail, work
from governance.store.schema.base import metadata

__all__ = ["decisions", "fleet", "identity", "ledger", "metadata", "models", "trail", "work"]
