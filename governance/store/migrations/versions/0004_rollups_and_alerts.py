"""Roll-ups of each hour, alerts that stand until they are cleared, what the ticks of periodic jobs came to."""

import sqlalchemy as sa

from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('alerts', sa.Column('pushed_us', sa.BigInteger(), nullable=True))
    op.add_column('alerts', sa.Column('finding', sa.Text(), nullable=True))
    op.add_column('alerts', sa.Column('cleared_us', sa.BigInteger(), nullable=True))
    standing = sa.text('finding IS NOT NULL AND cleared_us IS NULL')
    op.create_index('uq_alerts_standing', 'alerts', ['finding'], unique=True, postgresql_where=standing, sqlite_where=standing)
    op.add_column('ticks', sa.Column('finished_us', sa.BigInteger(), nullable=True))
    op.add_column('ticks', sa.Column('looked', sa.BigInteger(), nullable=True))
    op.create_index('ix_ticks_claimed_us', 'ticks', ['claimed_us'], unique=False)
    pending = sa.text("state = 'pending'")
    op.create_index('ix_tickets_oldest', 'tickets', ['requested_us'], unique=False, postgresql_where=pending, sqlite_where=pending)
    op.create_index('ix_accounts_window_end_us', 'accounts', ['window_end_us'], unique=False)
    op.create_index('ix_events_at_us', 'events', ['at_us'], unique=False)

    op.create_table('rollup_hours',
    sa.Column('hour_us', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.Column('rolled_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('hour_us', name=op.f('pk_rollup_hours'))
    )
    op.create_table('rollups',
    sa.Column('hour_us', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('stream', sa.Text(), nullable=False),
    sa.Column('figure', sa.Text(), nullable=False),
    sa.Column('label', sa.Text(), nullable=False),
    sa.Column('value', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['hour_us'], ['rollup_hours.hour_us'], name=op.f('fk_rollups_hour_us')),
    sa.PrimaryKeyConstraint('hour_us', 'stream', 'figure', 'label', name=op.f('pk_rollups'))
    )
