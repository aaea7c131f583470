"""What every table is made of: the metadata they are in, the type of numbered rows, and the check of a known value."""

from sqlalchemy import BigInteger, CheckConstraint, Integer, MetaData

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


def one_of(
    column: str, values: type[State | EntryKind | Flag | Unit | TicketState | Risk | Scope | Mode]
) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")
