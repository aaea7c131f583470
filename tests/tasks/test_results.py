"""What the result backend is asked and told of an action, on a real one; and STARTED by itself, without a fleet."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, group
from celery.app.task import Context

from acp_tasks.starts import Starts
from tests.support.fleet import Shop, eventually


class Watch:
    """Every command that reaches the server and names the result of one action, in order."""

    def __init__(self, shop: Shop) -> None:
        self._client = redis.Redis.from_url(shop.tasks.app.conf.result_backend)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]

    def __enter__(self) -> "Watch":
        self._monitor.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.__exit__()
        self._client.close()

    def commands(self, action_id: str) -> list[str]:
        """Since it began, without the looks of `there`."""
        self._client.echo("enough")
        named = []
        while not (command := self._monitor.next_command()["command"]).startswith("ECHO enough"):
            if f"celery-task-meta-{action_id}" in command:
                named.append(command.split()[0].upper())
        return [name for name in named if name != "EXISTS"]

    def there(self, action_id: str) -> None:
        """Waits until there is a result."""
        eventually(lambda: self._client.exists(f"celery-task-meta-{action_id}"), "the result is there")


def test_a_short_action_is_told_of_once_and_nothing_is_asked(shop: Shop) -> None:
    with Watch(shop) as watch:
        made = shop.tasks.add.delay(1, 2)
        watch.there(made.id)
        assert watch.commands(made.id) == ["SET", "PUBLISH"]
    assert made.get(timeout=20) == 3


def test_a_body_that_takes_time_is_shown_as_started(shop: Shop) -> None:
    with Watch(shop) as watch:
        made = shop.tasks.waits.delay(str(shop.folder))
        eventually(lambda: made.state == "STARTED", "it is shown")
        assert made.info.keys() == {"pid", "hostname"}
        (shop.folder / "go").touch()
        assert made.get(timeout=20) == 1
        assert watch.commands(made.id).count("SET") == 2
    assert made.state == "SUCCESS"


def test_a_callback_hears_of_what_ended_before_it_was_given(shop: Shop) -> None:
    made = shop.tasks.add.delay(1, 2)
    with Watch(shop) as watch:
        watch.there(made.id)
    heard: list[int] = []
    made.then(lambda result: heard.append(result.result))
    # Somebody who waits for something else reads for everybody.
    assert shop.tasks.add.delay(3, 4).get(timeout=20) == 7
    assert heard == [3]


def test_a_group_is_waited_for_as_ever(shop: Shop) -> None:
    results = group(shop.tasks.add.s(number, number) for number in range(5)).apply_async()
    assert results.get(timeout=30) == [0, 2, 4, 6, 8]


class Backend:
    """A real backend in memory, and what was written to it, in order."""

    def __init__(self) -> None:
        app: Any = Celery("shop", backend="cache+memory://")
        app.conf.result_backend_thread_safe = True

        def body() -> None:
            pass

        self.task = app.task(body, name="some", shared=False)
        self.written: list[str] = []
        self.slow = threading.Event()
        self.slow.set()
        self.writing = threading.Event()
        backend = app.backend
        write = backend._set_with_state

        def watched(key: Any, value: Any, state: str) -> None:
            self.writing.set()
            self.slow.wait(20)
            write(key, value, state)
            self.written.append(state)

        backend._set_with_state = watched

    def state(self, task_id: str) -> str:
        return str(self.task.AsyncResult(task_id).state)


def request(task_id: str) -> Any:
    return Context(id=task_id, hostname="w@here", called_directly=False)


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.slow.set()


def test_only_a_body_that_goes_on_is_told_of(backend: Backend) -> None:
    starts = Starts()
    with starts.told(backend.task, request("short")):
        pass
    with starts.told(backend.task, request("long")):
        eventually(lambda: backend.state("long") == "STARTED", "it is told of")
    assert backend.state("short") == "PENDING"


def test_an_outcome_waits_until_started_is_written(backend: Backend) -> None:
    starts = Starts()
    backend.slow.clear()
    ended = threading.Event()

    def body() -> None:
        with starts.told(backend.task, request("a")):
            backend.writing.wait(20)
        backend.written.append("outcome")
        ended.set()

    threading.Thread(target=body, daemon=True).start()
    assert backend.writing.wait(20)
    assert not ended.wait(0.1)
    backend.slow.set()
    assert ended.wait(20)
    assert backend.written == ["STARTED", "outcome"]


def test_without_a_thread_it_is_told_of_at_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    starts = Starts()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with starts.told(backend.task, request("alone")):
        assert backend.state("alone") == "STARTED"


def test_a_backend_that_is_away_stops_no_body(backend: Backend) -> None:
    tried = threading.Event()

    def away(*_: object) -> None:
        tried.set()
        raise ConnectionError("away")

    backend.task.backend._set_with_state = away
    with Starts().told(backend.task, request("away")):
        assert tried.wait(20)
    assert backend.state("away") == "PENDING"


def test_a_child_tells_of_no_body_of_its_parent(backend: Backend) -> None:
    starts = Starts()
    with starts.told(backend.task, request("parent")):
        starts.forget()
        with starts.told(backend.task, request("child")):
            eventually(lambda: backend.state("child") == "STARTED", "it is told of")
    assert backend.written == ["STARTED"]
