"""Messages whose command_id made another action wait in a row, not in a message that is sent round and round."""

import sqlalchemy as sa

from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'echoes',
        sa.Column('id', sa.Text(), nullable=False),
        sa.Column('first_id', sa.Text(), nullable=False),
        sa.Column('message', sa.Text(), nullable=False),
        sa.Column('created_us', sa.BigInteger(), nullable=False),
        sa.Column('published_us', sa.BigInteger(), nullable=True),
        sa.Column('publish_count', sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_echoes')),
    )
