"""Stripes: an account may be several rows, each with a share of its limit; every account until now is one."""

import sqlalchemy as sa

from alembic import op
from governance.store import guards

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == 'sqlite'
    if on_sqlite:
        # A trigger that looks at a table keeps it from being recreated.
        op.execute('DROP TRIGGER entries_kept')
    op.add_column('accounts', sa.Column('account', sa.Text(), nullable=True))
    op.add_column('accounts', sa.Column('stripe', sa.Integer(), nullable=True))
    op.add_column('accounts', sa.Column('stripes', sa.Integer(), nullable=True))
    op.add_column('accounts', sa.Column('account_limit', sa.BigInteger(), nullable=True))
    op.execute('UPDATE accounts SET account = id, stripe = 0, stripes = 1')
    before = 'uq_accounts_scope_scope_id_unit_window_start_us'
    with op.batch_alter_table('accounts', schema=None, copy_from=_accounts_before()) as batch_op:
        for name, kind in (('account', sa.Text()), ('stripe', sa.Integer()), ('stripes', sa.Integer())):
            batch_op.alter_column(name, existing_type=kind, nullable=False)
        batch_op.drop_constraint(op.f(before), type_='unique')
        batch_op.create_unique_constraint(op.f(f'{before}_stripe'), ['scope', 'scope_id', 'unit', 'window_start_us', 'stripe'])
        batch_op.create_check_constraint(op.f('ck_accounts_stripe_known'), 'stripe >= 0 AND stripe < stripes AND stripes <= 64 AND (id = account) = (stripe = 0)')
        batch_op.create_foreign_key(op.f('fk_accounts_account'), 'accounts', ['account'], ['id'])
        batch_op.create_index(op.f('ix_accounts_account'), ['account'], unique=False)
    if on_sqlite:
        for statement in guards.PRUNING_SQLITE:
            if statement.startswith('CREATE TRIGGER entries_kept'):
                op.execute(statement)


def _accounts_before() -> sa.Table:
    """`accounts` with the columns above, for SQLite, which recreates it: constraints cannot be read back from there."""
    table = sa.Table('accounts', sa.MetaData(),
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('account', sa.Text(), nullable=True),
    sa.Column('stripe', sa.Integer(), nullable=True),
    sa.Column('stripes', sa.Integer(), nullable=True),
    sa.Column('scope', sa.Text(), nullable=False),
    sa.Column('scope_id', sa.Text(), nullable=False),
    sa.Column('unit', sa.Text(), nullable=False),
    sa.Column('window_start_us', sa.BigInteger(), nullable=False),
    sa.Column('window_end_us', sa.BigInteger(), nullable=False),
    sa.Column('limit_amount', sa.BigInteger(), nullable=True),
    sa.Column('account_limit', sa.BigInteger(), nullable=True),
    sa.Column('posted', sa.BigInteger(), nullable=False),
    sa.Column('held', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("unit IN ('cost_micros', 'actions', 'tokens')", name=op.f('ck_accounts_unit_known')),
    sa.CheckConstraint('limit_amount >= 0', name=op.f('ck_accounts_limit_not_negative')),
    sa.CheckConstraint('posted >= 0 AND held >= 0', name=op.f('ck_accounts_amounts_not_negative')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_accounts')),
    sa.UniqueConstraint('scope', 'scope_id', 'unit', 'window_start_us', name=op.f('uq_accounts_scope_scope_id_unit_window_start_us'))
    )
    sa.Index('ix_accounts_window_end_us', table.c.window_end_us)
    return table
