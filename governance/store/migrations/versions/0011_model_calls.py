"""Calls of models: what each used, and what that cost at which prices."""

import sqlalchemy as sa

from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('model_calls',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('action_id', sa.Text(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('model', sa.Text(), nullable=False),
    sa.Column('tier', sa.Text(), nullable=True),
    sa.Column('override_id', sa.Text(), nullable=True),
    sa.Column('tokens_input', sa.BigInteger(), nullable=False),
    sa.Column('tokens_cached', sa.BigInteger(), nullable=False),
    sa.Column('tokens_output', sa.BigInteger(), nullable=False),
    sa.Column('cost_micros', sa.BigInteger(), nullable=False),
    sa.Column('price_input', sa.BigInteger(), nullable=True),
    sa.Column('price_cached', sa.BigInteger(), nullable=True),
    sa.Column('price_output', sa.BigInteger(), nullable=True),
    sa.Column('price_table', sa.Text(), nullable=True),
    sa.Column('flag', sa.Text(), nullable=True),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("tier IN ('standard', 'premium', 'restricted')", name=op.f('ck_model_calls_tier_known')),
    sa.CheckConstraint("flag IN ('unreported', 'unpriced')", name=op.f('ck_model_calls_flag_known')),
    sa.CheckConstraint('tokens_input >= 0 AND tokens_cached >= 0 AND tokens_output >= 0 AND cost_micros >= 0', name=op.f('ck_model_calls_amounts_not_negative')),
    sa.CheckConstraint('(price_table IS NULL) = (price_input IS NULL)', name=op.f('ck_model_calls_prices_from_a_table')),
    sa.ForeignKeyConstraint(['action_id'], ['actions.id'], name=op.f('fk_model_calls_action_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_model_calls'))
    )
    op.create_index(op.f('ix_model_calls_action_id'), 'model_calls', ['action_id'], unique=False)
    op.create_index('ix_model_calls_at_us', 'model_calls', ['at_us'], unique=False)
