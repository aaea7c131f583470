"""What an attempt holds is found without reading the whole ledger: its top-ups have an index, as its holds have."""

import sqlalchemy as sa

from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    topped_up = sa.text("kind = 'top_up'")
    op.create_index(
        'ix_entries_top_up', 'entries', ['action_id', 'attempt'], postgresql_where=topped_up, sqlite_where=topped_up
    )
