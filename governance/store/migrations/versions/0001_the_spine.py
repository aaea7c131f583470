"""Policies, sessions, actions, tickets, the ledger, the trail, workers."""

import sqlalchemy as sa

from alembic import op
from governance.store import guards

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('accounts',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('scope', sa.Text(), nullable=False),
    sa.Column('scope_id', sa.Text(), nullable=False),
    sa.Column('unit', sa.Text(), nullable=False),
    sa.Column('window_start_us', sa.BigInteger(), nullable=False),
    sa.Column('window_end_us', sa.BigInteger(), nullable=False),
    sa.Column('limit_amount', sa.BigInteger(), nullable=True),
    sa.Column('posted', sa.BigInteger(), nullable=False),
    sa.Column('held', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("unit IN ('cost_micros', 'actions', 'tokens')", name=op.f('ck_accounts_unit_known')),
    sa.CheckConstraint('limit_amount >= 0', name=op.f('ck_accounts_limit_not_negative')),
    sa.CheckConstraint('posted >= 0 AND held >= 0', name=op.f('ck_accounts_amounts_not_negative')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_accounts')),
    sa.UniqueConstraint('scope', 'scope_id', 'unit', 'window_start_us', name=op.f('uq_accounts_scope_scope_id_unit_window_start_us'))
    )
    op.create_table('commands',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('answer', sa.Text(), nullable=False),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_commands'))
    )
    op.create_table('events',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.Column('action_id', sa.Text(), nullable=True),
    sa.Column('attempt', sa.Integer(), nullable=True),
    sa.Column('state', sa.Text(), nullable=True),
    sa.Column('payload', sa.Text(), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=True),
    sa.Column('hash', sa.Text(), nullable=True),
    sa.CheckConstraint('(seq IS NULL) = (hash IS NULL)', name=op.f('ck_events_sealed_whole')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_events'))
    )
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.create_index('ix_events_action', ['action_id', 'id'], unique=False)
        batch_op.create_index('ix_events_unsealed', ['id'], unique=False, postgresql_where=sa.text('seq IS NULL'), sqlite_where=sa.text('seq IS NULL'))
        batch_op.create_index('uq_events_seq', ['session_id', 'seq'], unique=True, postgresql_where=sa.text('seq IS NOT NULL'), sqlite_where=sa.text('seq IS NOT NULL'))

    op.create_table('policies',
    sa.Column('hash', sa.Text(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('created_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('hash', name=op.f('pk_policies'))
    )
    op.create_table('ticks',
    sa.Column('job', sa.Text(), nullable=False),
    sa.Column('tick', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('claimed_us', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('job', 'tick', name=op.f('pk_ticks'))
    )
    op.create_table('workers',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('started_us', sa.BigInteger(), nullable=False),
    sa.Column('heartbeat_us', sa.BigInteger(), nullable=False),
    sa.Column('suspected_us', sa.BigInteger(), nullable=True),
    sa.Column('stopped_us', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_workers'))
    )
    op.create_table('entries',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('account_id', sa.Text(), nullable=False),
    sa.Column('action_id', sa.Text(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('held_delta', sa.BigInteger(), nullable=False),
    sa.Column('posted_delta', sa.BigInteger(), nullable=False),
    sa.Column('flag', sa.Text(), nullable=True),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("CASE WHEN kind = 'hold' THEN held_delta >= 0 AND posted_delta = 0 ELSE held_delta <= 0 END", name=op.f('ck_entries_two_phases')),
    sa.CheckConstraint("flag IN ('unreported', 'over_hold')", name=op.f('ck_entries_flag_known')),
    sa.CheckConstraint("kind IN ('hold', 'post', 'void', 'expire')", name=op.f('ck_entries_kind_known')),
    sa.CheckConstraint('posted_delta >= 0', name=op.f('ck_entries_posts_add')),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_entries_account_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_entries'))
    )
    with op.batch_alter_table('entries', schema=None) as batch_op:
        batch_op.create_index('uq_entries_closing', ['action_id', 'attempt', 'account_id'], unique=True, postgresql_where=sa.text("kind <> 'hold'"), sqlite_where=sa.text("kind <> 'hold'"))
        batch_op.create_index('uq_entries_hold', ['action_id', 'attempt', 'account_id'], unique=True, postgresql_where=sa.text("kind = 'hold'"), sqlite_where=sa.text("kind = 'hold'"))

    op.create_table('sessions',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('stream', sa.Text(), nullable=False),
    sa.Column('window_start_us', sa.BigInteger(), nullable=False),
    sa.Column('window_end_us', sa.BigInteger(), nullable=False),
    sa.Column('policy_hash', sa.Text(), nullable=False),
    sa.Column('opened_us', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('window_end_us > window_start_us', name=op.f('ck_sessions_window_forward')),
    sa.ForeignKeyConstraint(['policy_hash'], ['policies.hash'], name=op.f('fk_sessions_policy_hash')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sessions')),
    sa.UniqueConstraint('stream', 'window_start_us', name=op.f('uq_sessions_stream_window_start_us'))
    )
    op.create_table('actions',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('command_id', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('stream', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('idempotent', sa.Boolean(), nullable=False),
    sa.Column('direct', sa.Boolean(), nullable=False),
    sa.Column('agent_id', sa.Text(), nullable=True),
    sa.Column('user', sa.Text(), nullable=True),
    sa.Column('team', sa.Text(), nullable=True),
    sa.Column('org', sa.Text(), nullable=True),
    sa.Column('risk', sa.Text(), nullable=False),
    sa.Column('resource', sa.Text(), nullable=True),
    sa.Column('cost_micros', sa.BigInteger(), nullable=False),
    sa.Column('tokens', sa.BigInteger(), nullable=False),
    sa.Column('correlation_id', sa.Text(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('rule', sa.Text(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('guidance', sa.Text(), nullable=True),
    sa.Column('suggest', sa.Text(), nullable=True),
    sa.Column('ticket_id', sa.Text(), nullable=True),
    sa.Column('lease_worker', sa.Text(), nullable=True),
    sa.Column('lease_child', sa.Text(), nullable=True),
    sa.Column('created_us', sa.BigInteger(), nullable=False),
    sa.Column('published_us', sa.BigInteger(), nullable=True),
    sa.Column('publish_count', sa.Integer(), nullable=False),
    sa.Column('not_before_us', sa.BigInteger(), nullable=True),
    sa.Column('expires_us', sa.BigInteger(), nullable=True),
    sa.Column('started_us', sa.BigInteger(), nullable=True),
    sa.Column('finished_us', sa.BigInteger(), nullable=True),
    sa.Column('delivered_us', sa.BigInteger(), nullable=True),
    sa.Column('result', sa.Text(), nullable=True),
    sa.Column('error_type', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.CheckConstraint("(state = 'running') = (lease_worker IS NOT NULL)", name=op.f('ck_actions_lease_while_running')),
    sa.CheckConstraint("delivered_us IS NULL OR state IN ('succeeded', 'failed', 'denied')", name=op.f('ck_actions_delivered_when_terminal')),
    sa.CheckConstraint("risk IN ('low', 'medium', 'high', 'critical')", name=op.f('ck_actions_risk_known')),
    sa.CheckConstraint("state <> 'deferred' OR not_before_us IS NOT NULL", name=op.f('ck_actions_deferred_until')),
    sa.CheckConstraint("state <> 'parked' OR ticket_id IS NOT NULL", name=op.f('ck_actions_parked_with_ticket')),
    sa.CheckConstraint("state IN ('queued', 'parked', 'deferred', 'running', 'in_doubt', 'succeeded', 'failed', 'denied')", name=op.f('ck_actions_state_known')),
    sa.CheckConstraint('attempt >= 0', name=op.f('ck_actions_attempt_counts')),
    sa.CheckConstraint('cost_micros >= 0 AND tokens >= 0', name=op.f('ck_actions_amounts_not_negative')),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], name=op.f('fk_actions_session_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_actions')),
    sa.UniqueConstraint('command_id', name=op.f('uq_actions_command_id'))
    )
    with op.batch_alter_table('actions', schema=None) as batch_op:
        batch_op.create_index('ix_actions_live', ['state', 'created_us'], unique=False, postgresql_where=sa.text('delivered_us IS NULL'), sqlite_where=sa.text('delivered_us IS NULL'))

    op.create_table('tickets',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('action_id', sa.Text(), nullable=False),
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('rule', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('requested_us', sa.BigInteger(), nullable=False),
    sa.Column('expires_us', sa.BigInteger(), nullable=False),
    sa.Column('decided_us', sa.BigInteger(), nullable=True),
    sa.Column('decided_by', sa.Text(), nullable=True),
    sa.Column('decision_reason', sa.Text(), nullable=True),
    sa.CheckConstraint("state = 'pending' OR decided_us IS NOT NULL", name=op.f('ck_tickets_decision_dated')),
    sa.CheckConstraint("state IN ('pending', 'approved', 'consumed', 'denied', 'expired')", name=op.f('ck_tickets_state_known')),
    sa.ForeignKeyConstraint(['action_id'], ['actions.id'], name=op.f('fk_tickets_action_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tickets'))
    )
    with op.batch_alter_table('tickets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_tickets_action_id'), ['action_id'], unique=False)
        batch_op.create_index('ix_tickets_pending', ['expires_us'], unique=False, postgresql_where=sa.text("state = 'pending'"), sqlite_where=sa.text("state = 'pending'"))
        batch_op.create_index('uq_tickets_asked', ['action_id'], unique=True, postgresql_where=sa.text("state = 'pending'"), sqlite_where=sa.text("state = 'pending'"))

    for statement in guards.SQLITE if op.get_bind().dialect.name == "sqlite" else guards.POSTGRESQL:
        op.execute(statement)
