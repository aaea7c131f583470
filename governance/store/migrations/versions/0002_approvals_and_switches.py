"""Escalation chains, standing approvals, kill switches, tokens, drills, alerts.

A ticket of revision 0001 is one whose chain has one level: any approver, for the time it was given then. The webhook
hears of nothing that happened before it existed.

SQLite changes a table by writing it anew, from the description of it in here: constraints read back from a database
would be only those that the reader understands.
"""

from typing import Any

import sqlalchemy as sa

from alembic import op
from governance.core.digest import canonical_json, sha256

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

_SWITCH_EPOCH = """CREATE FUNCTION switch_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1633906803);
        RETURN (SELECT coalesce(max(epoch), 0) FROM switches);
    END $$"""
_TICKET_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    'policy_hash': sa.Text(),
    'chain': sa.Text(),
    'chain_hash': sa.Text(),
    'level': sa.Integer(),
    'votes': sa.Text(),
    'step': sa.Integer(),
    'told_step': sa.Integer(),
    'due_us': sa.BigInteger(),
}


def upgrade() -> None:
    _extend_actions()
    for name, kind in _TICKET_COLUMNS.items():
        op.add_column('tickets', sa.Column(name, kind, nullable=True))
    _fill_tickets(op.get_bind())
    _constrain_tickets()
    _create_tables()
    if op.get_bind().dialect.name == 'postgresql':
        op.execute(_SWITCH_EPOCH)


def _extend_actions() -> None:
    with op.batch_alter_table('actions', schema=None, copy_from=_actions_before()) as batch_op:
        batch_op.add_column(sa.Column('model', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('grant_id', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('switch_id', sa.Text(), nullable=True))
        batch_op.drop_constraint(op.f('ck_actions_state_known'), type_='check')
        batch_op.create_check_constraint(op.f('ck_actions_state_known'), "state IN ('queued', 'parked', 'deferred', 'running', 'in_doubt', 'succeeded', 'failed', 'denied', 'cancelled')")
        batch_op.drop_constraint(op.f('ck_actions_delivered_when_terminal'), type_='check')
        batch_op.create_check_constraint(op.f('ck_actions_delivered_when_terminal'), "delivered_us IS NULL OR state IN ('succeeded', 'failed', 'denied', 'cancelled')")


def _fill_tickets(connection: sa.Connection) -> None:
    connection.execute(sa.text(
        "UPDATE tickets SET level = 0, votes = '[]', due_us = expires_us,"
        " step = CASE WHEN state = 'pending' THEN 1 ELSE 2 END, told_step = CASE WHEN state = 'pending' THEN 1 ELSE 2 END,"
        " policy_hash = (SELECT sessions.policy_hash FROM actions JOIN sessions ON sessions.id = actions.session_id"
        " WHERE actions.id = tickets.action_id)"
    ))
    # A rule's tickets all have its timeout, so there are few of these.
    for within_us in connection.scalars(sa.text('SELECT DISTINCT expires_us - requested_us FROM tickets')).all():
        chain = canonical_json({'approvals': 1, 'levels': [{'roles': [], 'within_us': within_us}], 'requester_may_approve': False})
        connection.execute(
            sa.text('UPDATE tickets SET chain = :chain, chain_hash = :chain_hash WHERE expires_us - requested_us = :within_us'),
            {'chain': chain, 'chain_hash': sha256(chain), 'within_us': within_us},
        )


def _constrain_tickets() -> None:
    with op.batch_alter_table('tickets', schema=None, copy_from=_tickets_before()) as batch_op:
        for name, kind in _TICKET_COLUMNS.items():
            batch_op.alter_column(name, existing_type=kind, nullable=False)
        batch_op.drop_constraint(op.f('ck_tickets_state_known'), type_='check')
        batch_op.create_check_constraint(op.f('ck_tickets_state_known'), "state IN ('pending', 'approved', 'consumed', 'denied', 'expired', 'cancelled')")
        batch_op.create_check_constraint(op.f('ck_tickets_steps_forward'), 'level >= 0 AND told_step <= step')
        batch_op.create_check_constraint(op.f('ck_tickets_due_in_time'), 'due_us <= expires_us')
        batch_op.drop_index('ix_tickets_pending')
        batch_op.create_index('ix_tickets_pending', ['due_us'], unique=False, postgresql_where=sa.text("state = 'pending'"), sqlite_where=sa.text("state = 'pending'"))
        batch_op.create_index('ix_tickets_untold', ['id'], unique=False, postgresql_where=sa.text('told_step < step'), sqlite_where=sa.text('told_step < step'))


def _create_tables() -> None:
    op.create_table('grants',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('ticket_id', sa.Text(), nullable=False),
    sa.Column('rule', sa.Text(), nullable=False),
    sa.Column('chain_hash', sa.Text(), nullable=False),
    sa.Column('action_name', sa.Text(), nullable=False),
    sa.Column('agent_id', sa.Text(), nullable=True),
    sa.Column('user', sa.Text(), nullable=True),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('resource', sa.Text(), nullable=True),
    sa.Column('max_uses', sa.Integer(), nullable=True),
    sa.Column('uses', sa.Integer(), nullable=False),
    sa.Column('max_cost_micros', sa.BigInteger(), nullable=True),
    sa.Column('cost_micros', sa.BigInteger(), nullable=False),
    sa.Column('until_us', sa.BigInteger(), nullable=True),
    sa.Column('created_us', sa.BigInteger(), nullable=False),
    sa.Column('created_by', sa.Text(), nullable=False),
    sa.Column('revoked_us', sa.BigInteger(), nullable=True),
    sa.Column('revoked_by', sa.Text(), nullable=True),
    sa.Column('revoke_reason', sa.Text(), nullable=True),
    sa.CheckConstraint('cost_micros >= 0 AND (max_cost_micros IS NULL OR cost_micros <= max_cost_micros)', name=op.f('ck_grants_cost_bounded')),
    sa.CheckConstraint('session_id IS NOT NULL OR until_us IS NOT NULL', name=op.f('ck_grants_ends')),
    sa.CheckConstraint('uses >= 0 AND (max_uses IS NULL OR uses <= max_uses)', name=op.f('ck_grants_uses_bounded')),
    sa.ForeignKeyConstraint(['ticket_id'], ['tickets.id'], name=op.f('fk_grants_ticket_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_grants'))
    )
    op.create_index('ix_grants_usable', 'grants', ['rule', 'action_name'], unique=False, postgresql_where=sa.text('revoked_us IS NULL'), sqlite_where=sa.text('revoked_us IS NULL'))

    op.create_table('switches',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('scope', sa.Text(), nullable=False),
    sa.Column('scope_id', sa.Text(), nullable=False),
    sa.Column('mode', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('grace_us', sa.BigInteger(), nullable=False),
    sa.Column('engaged_us', sa.BigInteger(), nullable=False),
    sa.Column('engaged_by', sa.Text(), nullable=False),
    sa.Column('released_us', sa.BigInteger(), nullable=True),
    sa.Column('released_by', sa.Text(), nullable=True),
    sa.Column('release_reason', sa.Text(), nullable=True),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.CheckConstraint("mode IN ('kill', 'pause')", name=op.f('ck_switches_mode_known')),
    sa.CheckConstraint("scope IN ('action', 'session', 'stream', 'agent', 'user', 'team', 'org', 'name', 'model', 'system')", name=op.f('ck_switches_scope_known')),
    sa.CheckConstraint('(released_us IS NULL) = (release_reason IS NULL)', name=op.f('ck_switches_release_with_reason')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_switches')),
    sa.UniqueConstraint('epoch', name=op.f('uq_switches_epoch'))
    )
    op.create_index('uq_switches_engaged', 'switches', ['scope', 'scope_id', 'mode'], unique=True, postgresql_where=sa.text('released_us IS NULL'), sqlite_where=sa.text('released_us IS NULL'))

    op.create_table('tokens',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('principal', sa.Text(), nullable=False),
    sa.Column('roles', sa.Text(), nullable=False),
    sa.Column('hash', sa.Text(), nullable=False),
    sa.Column('created_us', sa.BigInteger(), nullable=False),
    sa.Column('created_by', sa.Text(), nullable=False),
    sa.Column('expires_us', sa.BigInteger(), nullable=True),
    sa.Column('revoked_us', sa.BigInteger(), nullable=True),
    sa.Column('revoked_by', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tokens'))
    )
    op.create_table('drills',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('session_id', sa.Text(), nullable=False),
    sa.Column('started_us', sa.BigInteger(), nullable=False),
    sa.Column('started_by', sa.Text(), nullable=False),
    sa.Column('finished_us', sa.BigInteger(), nullable=True),
    sa.Column('passed', sa.Boolean(), nullable=True),
    sa.Column('report', sa.Text(), nullable=True),
    sa.CheckConstraint('(finished_us IS NULL) = (passed IS NULL)', name=op.f('ck_drills_finished_with_a_verdict')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_drills'))
    )
    op.create_index('ix_drills_kind_started_us', 'drills', ['kind', 'started_us'], unique=False)

    op.create_table('alerts',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('payload', sa.Text(), nullable=False),
    sa.Column('at_us', sa.BigInteger(), nullable=False),
    sa.Column('told_us', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alerts'))
    )


def _actions_before() -> sa.Table:
    """`actions` as revision 0001 left it."""
    return sa.Table('actions', sa.MetaData(),
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
    sa.UniqueConstraint('command_id', name=op.f('uq_actions_command_id')),
    sa.Index('ix_actions_live', 'state', 'created_us', postgresql_where=sa.text('delivered_us IS NULL'), sqlite_where=sa.text('delivered_us IS NULL'))
    )


def _tickets_before() -> sa.Table:
    """`tickets` as revision 0001 left it, and the columns filled since."""
    return sa.Table('tickets', sa.MetaData(),
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
    *(sa.Column(name, kind, nullable=True) for name, kind in _TICKET_COLUMNS.items()),
    sa.CheckConstraint("state = 'pending' OR decided_us IS NOT NULL", name=op.f('ck_tickets_decision_dated')),
    sa.CheckConstraint("state IN ('pending', 'approved', 'consumed', 'denied', 'expired')", name=op.f('ck_tickets_state_known')),
    sa.ForeignKeyConstraint(['action_id'], ['actions.id'], name=op.f('fk_tickets_action_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_tickets')),
    sa.Index(op.f('ix_tickets_action_id'), 'action_id'),
    sa.Index('ix_tickets_pending', 'expires_us', postgresql_where=sa.text("state = 'pending'"), sqlite_where=sa.text("state = 'pending'")),
    sa.Index('uq_tickets_asked', 'action_id', unique=True, postgresql_where=sa.text("state = 'pending'"), sqlite_where=sa.text("state = 'pending'"))
    )
