"""An index for the list of open requests, the one that expires first on top."""

import sqlalchemy as sa

from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    pending = sa.text("state = 'pending'")
    op.create_index('ix_tickets_expiring', 'tickets', ['expires_us', 'id'], unique=False, postgresql_where=pending, sqlite_where=pending)
