"""What a producer says of what it published, without a fleet."""

import threading
from typing import Any

import pytest
from celery import Celery

from acp_tasks.batched_events import SentEvents


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The batches that were sent."""
    batches: list[list[dict[str, Any]]] = []

    class Producer:
        def __enter__(self) -> "Producer":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def publish(self, batch: list[dict[str, Any]], **_: object) -> None:
            batches.append(batch)

    monkeypatch.setattr(Celery, "producer_or_acquire", lambda _app: Producer())
    return batches


def test_events_go_together_and_once(sent: list[list[dict[str, Any]]]) -> None:
    events = SentEvents(Celery("shop", broker="memory://"))
    for number in range(3):
        events.publish("task-sent", {"uuid": str(number)}, None)
    events.flush()
    events.flush()
    assert [event["uuid"] for batch in sent for event in batch] == ["0", "1", "2"]
    assert {event["type"] for batch in sent for event in batch} == {"task-sent"}


def test_without_a_thread_they_are_sent_at_once(
    sent: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    events = SentEvents(Celery("shop", broker="memory://"))
    for number in range(2):
        events.publish("task-sent", {"uuid": str(number)}, None)
    assert [[event["uuid"] for event in batch] for batch in sent] == [["0"], ["1"]]


def test_a_child_sends_nothing_of_its_parent(sent: list[list[dict[str, Any]]]) -> None:
    events = SentEvents(Celery("shop", broker="memory://"))
    events.publish("task-sent", {"uuid": "parent"}, None)
    events.forget()
    events.flush()
    assert sent == []
