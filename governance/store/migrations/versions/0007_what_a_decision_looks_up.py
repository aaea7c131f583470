"""Indexes for what is looked up for whoever decides; a suspicion is no longer kept, its sweeper watches for itself."""

import sqlalchemy as sa

from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column('workers', 'suspected_us')
    of_agent, decided = sa.text('agent_id IS NOT NULL'), sa.text('decided_us IS NOT NULL')
    op.create_index('ix_actions_agent', 'actions', ['agent_id', 'created_us'], unique=False, postgresql_where=of_agent, sqlite_where=of_agent)
    op.create_index('ix_tickets_decided', 'tickets', ['rule', 'decided_us'], unique=False, postgresql_where=decided, sqlite_where=decided)
