"""Sessions that close, and turn early, with epochs that count like those of the switches; checkpoints."""

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
    op.add_column('actions', sa.Column('superseded_by', sa.Text(), nullable=True))
    op.create_index('ix_actions_session', 'actions', ['session_id', 'delivered_us'], unique=False)
    op.create_table('checkpoints',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('stream', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('made_us', sa.BigInteger(), nullable=False),
    sa.Column('made_by', sa.Text(), nullable=False),
    sa.Column('action_id', sa.Text(), nullable=True),
    sa.Column('cycle', sa.BigInteger(), nullable=True),
    sa.Column('event_id', sa.BigInteger(), nullable=False),
    sa.Column('control', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=True),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('superseded_us', sa.BigInteger(), nullable=True),
    sa.Column('superseded_by', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_checkpoints_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_checkpoints'))
    )
    op.create_index('ix_checkpoints_stream', 'checkpoints', ['stream', 'made_us'], unique=False)
    if op.get_bind().dialect.name == 'postgresql':
        op.execute(epochs.SWITCH_EPOCH)
