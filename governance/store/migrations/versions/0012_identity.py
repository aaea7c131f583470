"""The directory of users, teams and orgs; what it filled in, and who signed for an action."""

import sqlalchemy as sa

from alembic import op
from governance.store import epochs

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('orgs', sa.Column('id', sa.Text(), nullable=False), sa.PrimaryKeyConstraint('id', name=op.f('pk_orgs')))
    op.create_table(
        'teams',
        sa.Column('id', sa.Text(), nullable=False),
        sa.Column('org', sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(['org'], ['orgs.id'], name=op.f('fk_teams_org')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_teams')),
    )
    op.create_table(
        'users',
        sa.Column('id', sa.Text(), nullable=False),
        sa.Column('team', sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(['team'], ['teams.id'], name=op.f('fk_users_team')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_users')),
    )
    op.create_table(
        'directories',
        sa.Column('epoch', sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column('hash', sa.Text(), nullable=False),
        sa.Column('orgs', sa.Integer(), nullable=False),
        sa.Column('teams', sa.Integer(), nullable=False),
        sa.Column('users', sa.Integer(), nullable=False),
        sa.Column('loaded_us', sa.BigInteger(), nullable=False),
        sa.Column('loaded_by', sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint('epoch', name=op.f('pk_directories')),
    )
    op.add_column('actions', sa.Column('filled', sa.Text(), nullable=True))
    op.add_column('actions', sa.Column('signature', sa.Text(), nullable=True))
    if op.get_bind().dialect.name == 'postgresql':
        op.execute(epochs.SWITCH_EPOCH)
