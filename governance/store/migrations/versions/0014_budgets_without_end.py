"""Accounts of budgets that never end: how far their closed holds may be gone, and what those had posted."""

import sqlalchemy as sa

from alembic import op
from governance.store import guards

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('accounts', sa.Column('summed_us', sa.BigInteger(), nullable=True))
    op.add_column('accounts', sa.Column('summed', sa.BigInteger(), nullable=True))
    postgresql = op.get_bind().dialect.name == 'postgresql'
    for statement in guards.SUMMED_POSTGRESQL if postgresql else guards.SUMMED_SQLITE:
        op.execute(statement)
