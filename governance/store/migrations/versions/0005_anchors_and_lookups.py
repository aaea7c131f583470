"""Anchors: what is left of pruned history, and triggers that let exactly that be deleted; indexes for what looks."""

import sqlalchemy as sa

from alembic import op
from governance.store import guards

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('anchors',
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('hash', sa.Text(), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.Column('pruned_us', sa.BigInteger(), nullable=False),
    sa.Column('recorded_in', sa.Text(), nullable=False),
    sa.Column('cleared_us', sa.BigInteger(), nullable=True),
    sa.CheckConstraint('seq > 0 AND events > 0', name=op.f('ck_anchors_stands_for_events')),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_anchors_session_id')),
    sa.PrimaryKeyConstraint('session_id', 'seq', name=op.f('pk_anchors'))
    )
    op.create_index('ix_anchors_uncleared', 'anchors', ['session_id'], unique=False, postgresql_where=sa.text('cleared_us IS NULL'), sqlite_where=sa.text('cleared_us IS NULL'))
    op.add_column('actions', sa.Column('pruned_state', sa.Text(), nullable=True))
    op.add_column('actions', sa.Column('pruned_attempt', sa.Integer(), nullable=True))
    op.create_index('ix_actions_unpublished', 'actions', ['created_us'], unique=False, postgresql_where=sa.text('delivered_us IS NULL AND published_us IS NULL'), sqlite_where=sa.text('delivered_us IS NULL AND published_us IS NULL'))
    op.create_index(op.f('ix_grants_ticket_id'), 'grants', ['ticket_id'], unique=False)
    op.create_index(op.f('ix_entries_account_id'), 'entries', ['account_id'], unique=False)
    op.create_index(op.f('ix_commands_at_us'), 'commands', ['at_us'], unique=False)
    for statement in guards.PRUNING_SQLITE if op.get_bind().dialect.name == 'sqlite' else guards.PRUNING_POSTGRESQL:
        op.execute(statement)
