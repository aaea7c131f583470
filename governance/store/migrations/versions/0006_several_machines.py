"""What workers say of themselves, and the schedulers that are alive."""

import sqlalchemy as sa

from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('workers', sa.Column('host', sa.Text(), nullable=True))
    op.add_column('workers', sa.Column('queues', sa.Text(), nullable=True))
    op.add_column('workers', sa.Column('slots', sa.Integer(), nullable=True))
    op.add_column('workers', sa.Column('ready_us', sa.BigInteger(), nullable=True))
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
