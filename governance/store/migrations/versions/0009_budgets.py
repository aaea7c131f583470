"""Budgets by identity: more of a hold while an attempt runs."""

import sqlalchemy as sa

from alembic import op
from governance.store import guards

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    closing = sa.text("kind IN ('post', 'void', 'expire')")
    op.drop_index('uq_entries_closing', 'entries')
    with op.batch_alter_table('entries', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('ck_entries_kind_known'), type_='check')
        batch_op.create_check_constraint(op.f('ck_entries_kind_known'), "kind IN ('hold', 'top_up', 'post', 'void', 'expire')")
        batch_op.drop_constraint(op.f('ck_entries_two_phases'), type_='check')
        batch_op.create_check_constraint(op.f('ck_entries_two_phases'), "CASE WHEN kind IN ('hold', 'top_up') THEN held_delta >= 0 AND posted_delta = 0 ELSE held_delta <= 0 END")
    op.create_index('uq_entries_closing', 'entries', ['action_id', 'attempt', 'account_id'], unique=True, postgresql_where=closing, sqlite_where=closing)
    if op.get_bind().dialect.name == 'sqlite':
        # A table that is made anew has lost its triggers.
        for statement in (*guards.SQLITE, *guards.PRUNING_SQLITE):
            if statement.startswith('CREATE TRIGGER entries_fixed') or (statement.startswith('CREATE TRIGGER entries_kept') and 'anchors' in statement):
                op.execute(statement)
