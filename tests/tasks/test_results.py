"""What the result backend is asked and told of an action, on a real one; and STARTED by itself, without a fleet."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery, group
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded

from acp_tasks.conclusion import conclude
from acp_tasks.results import is_recorded, mark_recorded, store_started
from acp_tasks.starts import Starts, starts
from governance.middleware.call import Returned
from governance.operations.finish import Succeeded
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


def test_a_body_that_takes_time_is_shown_as_started(shop: Shop, tmp_path: Path) -> None:
    with Watch(shop) as watch:
        made = shop.tasks.waits.delay(str(tmp_path))
        eventually(lambda: made.state == "STARTED", "it is shown")
        assert made.info.keys() == {"pid", "hostname"}
        (tmp_path / "go").touch()
        assert made.get(timeout=20) == 1
        assert watch.commands(made.id).count("SET") == 2
    assert made.state == "SUCCESS"


def test_what_a_body_says_of_itself_is_not_replaced_by_its_start(shop: Shop, tmp_path: Path) -> None:
    made = shop.tasks.says_progress.delay(str(tmp_path))
    eventually(lambda: made.state == "PROGRESS", "it is shown")
    # Longer than any start waits to be told.
    later = shop.tasks.waits.delay(str(tmp_path))
    eventually(lambda: later.state == "STARTED", "a later one is shown")
    assert (made.state, made.info) == ("PROGRESS", {"done": 1})
    (tmp_path / "go").touch()
    assert made.get(timeout=20) == 2
    assert later.get(timeout=20) == 1


def test_what_a_body_says_waits_for_a_start_that_is_being_written(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    task, said = shop.tasks.says_progress, request(str(uuid4()))
    encode, reached, go_on = task.backend.encode, threading.Event(), threading.Event()

    def slow(meta: dict[str, Any]) -> Any:
        if meta["status"] == "STARTED":
            reached.set()
            go_on.wait(20)
        return encode(meta)

    monkeypatch.setattr(task.backend, "encode", slow)
    starts.begin(task, said)
    assert reached.wait(20)
    with ThreadPoolExecutor(1) as pool:
        saying = pool.submit(task.update_state, said.id, "PROGRESS", {"done": 1})
        with pytest.raises(TimeoutError):
            saying.result(timeout=0.3)
        go_on.set()
        saying.result(timeout=20)
    assert task.AsyncResult(said.id).state == "PROGRESS"


@pytest.mark.parametrize("known", ["RETRY", None])
def test_a_worker_that_stands_still_between_its_look_and_its_word_hides_no_outcome(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, known: str | None
) -> None:
    backend, said = shop.tasks.add.backend, request(str(uuid4()))
    if known is not None:
        backend.store_result(said.id, None, known)
    put = backend._put

    def frozen(pipe: Any, *rest: Any) -> None:
        # Meanwhile another worker has run it.
        monkeypatch.undo()
        backend.store_result(said.id, 2, "SUCCESS")
        put(pipe, *rest)

    monkeypatch.setattr(backend, "_put", frozen)
    store_started(backend, said, {"pid": 1})
    assert backend.get_state(said.id) == "SUCCESS"
    assert backend.get_result(said.id) == 2


def test_only_an_end_that_the_store_has_is_marked_as_recorded() -> None:
    for recorded in (True, False):
        task = SimpleNamespace(request=request("a"))
        call = SimpleNamespace(admission=None, arrival=SimpleNamespace(action_id="a"))
        told: Any = conclude
        assert told(task, call, Returned(1, Succeeded("1"), recorded=recorded)) == 1
        assert is_recorded(task.request, "a") is recorded


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
    starts.begin(backend.task, request("short"))
    starts.over("short")
    starts.begin(backend.task, request("long"))
    eventually(lambda: backend.state("long") == "STARTED", "it is told of")
    starts.over("long")
    assert backend.state("short") == "PENDING"


def test_an_outcome_waits_until_started_is_written(backend: Backend) -> None:
    starts = Starts()
    backend.slow.clear()
    ended = threading.Event()

    def body() -> None:
        starts.begin(backend.task, request("a"))
        backend.writing.wait(20)
        starts.over("a")
        backend.written.append("outcome")
        ended.set()

    threading.Thread(target=body, daemon=True).start()
    assert backend.writing.wait(20)
    assert not ended.wait(0.1)
    backend.slow.set()
    assert ended.wait(20)
    assert backend.written == ["STARTED", "outcome"]


def test_a_time_limit_does_not_end_the_wait_for_it(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts()
    wait_for, struck = threading.Condition.wait_for, [SoftTimeLimitExceeded(), SoftTimeLimitExceeded()]

    def interrupted(condition: threading.Condition, *rest: Any) -> Any:
        if struck:
            raise struck.pop()
        return wait_for(condition, *rest)

    monkeypatch.setattr(threading.Condition, "wait_for", interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        starts.over("a")
    starts.over("a", (SoftTimeLimitExceeded,))
    assert not struck


@pytest.mark.parametrize("there", ["PROGRESS", "FAILURE", "SUCCESS"])
def test_it_hides_nothing_that_was_said_meanwhile(backend: Backend, there: str) -> None:
    """As after a machine has stood still in the middle of a body."""
    backend.task.backend.store_result(f"still-{there}", None, there)
    starts = Starts()
    starts.begin(backend.task, request(f"still-{there}"))
    starts.begin(backend.task, request(f"beside-{there}"))
    eventually(lambda: backend.state(f"beside-{there}") == "STARTED", "both were looked at")
    assert backend.state(f"still-{there}") == there


def test_it_is_told_of_the_next_attempt(backend: Backend) -> None:
    backend.task.backend.store_result("again", None, "RETRY")
    starts = Starts()
    starts.begin(backend.task, request("again"))
    eventually(lambda: backend.state("again") == "STARTED", "it is told of")


def test_without_a_thread_the_body_runs_all_the_same(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    starts = Starts()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        starts.begin(backend.task, request("alone"))
        starts.over("alone")
    starts.begin(backend.task, request("later"))
    eventually(lambda: backend.state("later") == "STARTED", "a thread was to be had")
    assert backend.state("alone") == "PENDING"


def test_a_backend_that_is_away_keeps_no_body(backend: Backend) -> None:
    tried = threading.Event()

    def away(*_: object) -> None:
        tried.set()
        raise ConnectionError("away")

    starts = Starts()
    backend.task.backend._set_with_state = away
    starts.begin(backend.task, request("away"))
    assert tried.wait(20)
    starts.over("away")
    assert backend.state("away") == "PENDING"


def test_a_child_tells_of_no_body_of_its_parent(backend: Backend) -> None:
    starts = Starts()
    starts.begin(backend.task, request("parent"))
    starts.forget()
    starts.begin(backend.task, request("child"))
    eventually(lambda: backend.state("child") == "STARTED", "it is told of")
    assert backend.written == ["STARTED"]


class Waiter:
    """A process that waits for results on a real server, without a fleet: they are written by hand."""

    def __init__(self, broker_address: str) -> None:
        app: Any = Celery("waiter", broker="memory://", backend=broker_address, task_cls="acp_tasks:GovernedTask")
        app.conf.result_backend_thread_safe = True

        @app.task(name="waits", governed=False, shared=False)
        def waits() -> None:
            """Never runs."""

        app.finalize()
        self.app = app
        self.backend = app.backend
        self.consumer = app.backend.result_consumer

    def wrote(self, value: int) -> Any:
        """The result of an action that has ended."""
        task_id = str(uuid4())
        self.backend.store_result(task_id, value, "SUCCESS")
        return self.app.AsyncResult(task_id)

    def close(self) -> None:
        self.consumer.stop()
        self.backend.client.connection_pool.disconnect()
        self.app.close()


@pytest.fixture
def waiter(broker_address: str) -> Iterator[Waiter]:
    made = Waiter(broker_address)
    yield made
    made.close()


def test_a_callback_that_raises_costs_the_others_nothing(waiter: Waiter) -> None:
    heard: list[int] = []

    def hear(result: Any) -> None:
        heard.append(result.result)
        raise ValueError("not now")

    results = [waiter.wrote(number) for number in range(5)]
    for result in results:
        result.then(hear)
    for _ in results:
        with pytest.raises(ValueError, match="not now"):
            waiter.consumer.drain_events(timeout=0.01)
    assert sorted(heard) == [0, 1, 2, 3, 4]


def test_what_nobody_waits_for_is_not_kept(waiter: Waiter) -> None:
    for number in range(50):
        waiter.wrote(number).then(lambda _: None, weak=True)
    gc.collect()
    assert waiter.consumer._unread == set()
    assert waiter.consumer.subscribed_to == set()


def test_threads_wait_each_for_its_own(waiter: Waiter) -> None:
    ids = [str(uuid4()) for _ in range(60)]

    def get(number: int) -> int:
        if number % 3 == 0:
            waiter.wrote(number).then(lambda _: None)
        return int(waiter.app.AsyncResult(ids[number]).get(timeout=20))

    with ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(get, number) for number in range(60)]
        for number, task_id in enumerate(ids):
            waiter.backend.store_result(task_id, number, "SUCCESS")
        assert [one.result() for one in waiting] == list(range(60))


def test_only_the_action_that_is_on_record_is_written_without_reading(waiter: Waiter) -> None:
    first = waiter.wrote(1)
    of_another = Context(id=first.id, called_directly=False)
    mark_recorded(of_another, "another")
    waiter.backend.store_result(first.id, 2, "SUCCESS", request=of_another)
    assert waiter.app.AsyncResult(first.id).get(timeout=20) == 1
    mark_recorded(of_another, first.id)
    waiter.backend.store_result(first.id, 2, "SUCCESS", request=of_another)
    waiter.backend._cache.clear()
    assert waiter.app.AsyncResult(first.id).get(timeout=20) == 2
