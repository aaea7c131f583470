"""What workers say of themselves, the schedulers that are alive, and open windows found by their end."""

import sqlalchemy as sa

from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('workers', sa.Column('host', sa.Text(), nullable=True))
    op.add_column('workers', sa.Column('queues', sa.Text(), nullable=True))
    op.add_column('workers', sa.Column('slots', sa.Integer(), nullable=True))
    op.create_index(op.f('ix_accounts_window_end_us'), 'accounts', ['window_end_us'])
    op.create_table(
        'beats',
        sa.Column('id', sa.Text(), nullable=False),
        sa.Column('host', sa.Text(), nullable=False),
        sa.Column('pid', sa.Integer(), nullable=False),
        sa.Column('started_us', sa.BigInteger(), nullable=False),
        sa.Column('heartbeat_us', sa.BigInteger(), nullable=False),
        sa.Column('stopped_us', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_beats')),
    )
