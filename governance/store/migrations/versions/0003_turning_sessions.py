"""Sessions that close, and turn early; their epochs count like those of the switches."""

import sqlalchemy as sa

from alembic import op
from governance.store import epochs

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('sessions', sa.Column('closed_us', sa.BigInteger(), nullable=True))
    op.add_column('sessions', sa.Column('summary', sa.Text(), nullable=True))
    op.add_column('sessions', sa.Column('epoch', sa.BigInteger(), nullable=True))
    op.create_index('ix_sessions_unclosed', 'sessions', ['window_end_us'], unique=False, postgresql_where=sa.text('closed_us IS NULL'), sqlite_where=sa.text('closed_us IS NULL'))
    op.create_index('ix_sessions_epoch', 'sessions', ['epoch'], unique=False)
    op.create_index('ix_actions_session_live', 'actions', ['session_id'], unique=False, postgresql_where=sa.text('delivered_us IS NULL'), sqlite_where=sa.text('delivered_us IS NULL'))
    if op.get_bind().dialect.name == 'postgresql':
        op.execute(epochs.SWITCH_EPOCH)
