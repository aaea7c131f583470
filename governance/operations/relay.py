"""Relay: what was accepted is published until it is heard. The broker may lose all it holds; the rows may not."""

from dataclasses import dataclass

from governance.core.changes import Author
from governance.core.transitions import released
from governance.operations.context import Governance
from governance.store import actions, echoes, sweeps
from governance.store.action_rows import ActionRow
from governance.store.changes import apply


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish: the action's id and what Celery needs, as it was recorded."""

    action_id: str
    message: str


def release_due(gov: Governance, actor: str, limit: int) -> list[Outgoing]:
    """Deferred actions whose time has come, queued again."""
    now_us = gov.clock.now_us()
    return [
        _outgoing(action)
        for action in sweeps.due(gov.store, now_us, limit)
        if apply(gov.store, released(action.ref, Author(actor, now_us), cause="due"))
    ]


def unpublished(gov: Governance, limit: int) -> list[Outgoing]:
    """Messages that are known not to be on their way."""
    now_us = gov.clock.now_us()
    return _claim(gov, sweeps.unpublished(gov.store, now_us, limit), now_us)


def silent(gov: Governance, limit: int) -> list[Outgoing]:
    """Messages that went out long ago and had no effect: lost, or waiting in a long queue.

    The caller looks at the queue's length first; the interval doubles with every publication of the same action.
    """
    now_us = gov.clock.now_us()
    stale_us = gov.clock.span_us(gov.limits.relay_s)
    return _claim(gov, sweeps.silent(gov.store, stale_us=stale_us, now_us=now_us, limit=limit), now_us)


def keep_echo(gov: Governance, echo: Outgoing, first_id: str, *, published: bool) -> None:
    """Records a message whose command_id made the action `first_id`: it is told that one's outcome."""
    echoes.keep(gov.store, echo.action_id, first_id, echo.message, gov.clock.now_us(), published=published)


def told_echo(gov: Governance, echo_id: str) -> None:
    """The caller tells it now."""
    echoes.told(gov.store, echo_id)


def due_echoes(gov: Governance, limit: int) -> list[Outgoing]:
    """Echoes of actions that have ended, to be published."""
    stale_us = gov.clock.span_us(gov.limits.relay_s)
    found = echoes.due(gov.store, stale_us=stale_us, now_us=gov.clock.now_us(), limit=limit)
    return [Outgoing(echo_id, message) for echo_id, message in found]


def message_of(gov: Governance, action_id: str) -> Outgoing | None:
    """The recorded message of one action, for the delivery of a decision."""
    action = actions.find(gov.store, action_id)
    return _outgoing(action) if action is not None else None


def not_published(gov: Governance, action_id: str) -> None:
    """The broker refused the message of a recorded action: publish it as soon as possible."""
    actions.unpublish(gov.store, action_id)


def tell_again(gov: Governance, action_id: str) -> None:
    """If the action has ended by now, its outcome is delivered once more."""
    actions.undeliver(gov.store, action_id)


def _claim(gov: Governance, found: list[ActionRow], now_us: int) -> list[Outgoing]:
    return [_outgoing(action) for action in found if actions.republished(gov.store, action, now_us)]


def _outgoing(action: ActionRow) -> Outgoing:
    return Outgoing(action.ref.id, action.message)
