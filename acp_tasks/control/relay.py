"""Relay: publishes again what was accepted and not heard of, so that the broker may lose everything it holds."""

from typing import Any, cast

from celery import Celery

from acp_tasks.control_queue import CONTROL
from acp_tasks.publish import BROKER_ERRORS, publish
from governance.faults import point
from governance.operations import relay as operation
from governance.operations.context import Governance

_BATCH = 500


def relay(app: Celery, gov: Governance) -> int:
    """Publishes due and unpublished actions, echoes of those that ended, and silent ones, in this order; how many."""
    sent = 0
    for pick in (_due, operation.unpublished, operation.due_echoes):
        while outgoing := pick(gov, _BATCH):
            point("after_relay_claim_before_publish")
            published = sum(publish(app, gov, message) for message in outgoing)
            sent += published
            if published < len(outgoing):
                # The broker is away: what is left stays marked, the next tick goes on.
                return sent
    # Messages that wait in a long queue are late, not lost: publishing them again would only lengthen it.
    room = _BATCH - _waiting(app)
    if room > 0:
        sent += sum(publish(app, gov, message) for message in operation.silent(gov, room))
    return sent


def _due(gov: Governance, limit: int) -> list[operation.Outgoing]:
    return operation.release_due(gov, "relay", limit)


def _waiting(app: Celery) -> int:
    """Messages that wait in the app's queues for agents' workers, as far as the broker tells; a full batch when it is
    away. The queues that an app names only where it publishes count once this process has published there.
    """
    waiting = 0
    try:
        with app.connection_for_read() as connection, connection.channel() as channel:
            for name, queue in tuple(app.amqp.queues.items()):
                if name == CONTROL:
                    continue
                try:
                    waiting += cast(Any, queue.bind(channel).queue_declare(passive=True)).message_count
                except connection.channel_errors:
                    # A queue that the broker does not know holds nothing.
                    continue
    except BROKER_ERRORS:
        return _BATCH
    return waiting
