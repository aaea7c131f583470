"""Budgets by identity: those that people set, raises of a limit, and more of a hold while an attempt runs."""

import sqlalchemy as sa

from alembic import op
from governance.store import epochs, guards

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('accounts', sa.Column('raised', sa.BigInteger(), nullable=True))
    op.add_column('accounts', sa.Column('pruned_us', sa.BigInteger(), nullable=True))
    op.create_table('budgets',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('config', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('set_us', sa.BigInteger(), nullable=False),
    sa.Column('set_by', sa.Text(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_budgets')),
    sa.UniqueConstraint('epoch', name=op.f('uq_budgets_epoch'))
    )
    op.create_table('raises',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('budget_id', sa.Text(), nullable=False),
    sa.Column('who', sa.Text(), nullable=True),
    sa.Column('cost_micros', sa.BigInteger(), nullable=False),
    sa.Column('tokens', sa.BigInteger(), nullable=False),
    sa.Column('until_us', sa.BigInteger(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('raised_us', sa.BigInteger(), nullable=False),
    sa.Column('raised_by', sa.Text(), nullable=False),
    sa.Column('ended_us', sa.BigInteger(), nullable=True),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('cost_micros >= 0 AND tokens >= 0 AND cost_micros + tokens > 0', name=op.f('ck_raises_adds')),
    sa.CheckConstraint('until_us > raised_us', name=op.f('ck_raises_ends_later')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_raises')),
    sa.UniqueConstraint('epoch', name=op.f('uq_raises_epoch'))
    )
    lasting = sa.text('ended_us IS NULL')
    op.create_index('ix_raises_lasting', 'raises', ['until_us'], unique=False, postgresql_where=lasting, sqlite_where=lasting)
    closing = sa.text("kind IN ('post', 'void', 'expire')")
    op.drop_index('uq_entries_closing', 'entries')
    with op.batch_alter_table('entries', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('ck_entries_kind_known'), type_='check')
        batch_op.create_check_constraint(op.f('ck_entries_kind_known'), "kind IN ('hold', 'top_up', 'post', 'void', 'expire')")
        batch_op.drop_constraint(op.f('ck_entries_two_phases'), type_='check')
        batch_op.create_check_constraint(op.f('ck_entries_two_phases'), "CASE WHEN kind IN ('hold', 'top_up') THEN held_delta >= 0 AND posted_delta = 0 ELSE held_delta <= 0 END")
    op.create_index('uq_entries_closing', 'entries', ['action_id', 'attempt', 'account_id'], unique=True, postgresql_where=closing, sqlite_where=closing)
    if op.get_bind().dialect.name == 'postgresql':
        for statement in (epochs.SWITCH_EPOCH, *guards.BUDGETS_POSTGRESQL):
            op.execute(statement)
    else:
        # A table that is made anew has lost its triggers.
        fixed = [statement for statement in guards.SQLITE if 'TRIGGER entries_fixed' in statement]
        for statement in (*fixed, *guards.BUDGETS_SQLITE):
            op.execute(statement)
