"""A steady flow of actions, and a person who decides: both go on whatever dies."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from celery import chain

from acp_tasks.bootstrap import new_id
from governance.errors import GovernanceError, StateConflict, StoreUnavailable
from tests.support.fleet import Shop

_EVERY_S: Final = 0.15
_LONGEST_S: Final = 1.5
_DENIED: Final = 0.3


@dataclass(frozen=True)
class Asked:
    """One call of the producer: the ids it will have, and how to make it, as often as it takes."""

    kind: str
    ids: tuple[str, ...]
    make: Callable[[], Any]


class Load:
    """Submits until it is stopped. What the store did not take is submitted again, under the same ids."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop = shop
        self.accepted: list[Asked] = []
        self.decided: Counter[str] = Counter()
        self._refused: list[Asked] = []
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._produce, self._decide)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, deadline_s: float = 60.0) -> None:
        """Ends the flow; decides and submits what is left."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=deadline_s)
            if thread.is_alive():
                raise TimeoutError(f"the producer hangs in a call, {len(self.accepted)} accepted so far")
        while self._refused:
            self._submit(self._refused.pop())

    def decide_all(self) -> None:
        """Answers whoever still waits for a person."""
        for action_id in self._waiting():
            self._answer(action_id, "approved")

    def _produce(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._submit(self._next())
            if self._refused:
                self._submit(self._refused.pop(0))

    def _submit(self, asked: Asked) -> None:
        try:
            asked.make()
        except StoreUnavailable:
            self._refused.append(asked)
        else:
            self.accepted.append(asked)

    def _next(self) -> Asked:
        tasks, folder = self.shop.tasks, str(self.shop.folder)
        kind = self._random.choice(("idempotent", "once", "asked", "chain"))
        took_s = round(self._random.uniform(0, _LONGEST_S), 2) if self._random.random() < 0.3 else 0.0
        task = {"idempotent": tasks.takes, "once": tasks.takes_once}.get(kind)
        id = new_id()
        if task is not None:
            return Asked(kind, (id,), lambda: task.apply_async((folder, took_s), task_id=id))
        if kind == "asked":
            return Asked(kind, (id,), lambda: tasks.asked.apply_async((folder,), task_id=id))
        second = new_id()
        steps = chain(
            tasks.takes.si(folder, took_s).set(task_id=id),
            tasks.idempotent_effect.si(folder).set(task_id=second),
        )
        return Asked(kind, (id, second), steps.apply_async)

    def _decide(self) -> None:
        while not self._stop.wait(0.3):
            # Nobody to ask while the store is away, and a request that ran out was denied by somebody else.
            with suppress(GovernanceError):
                for action_id in self._waiting():
                    self._answer(action_id, "denied" if self._random.random() < _DENIED else "approved")

    def _waiting(self) -> list[str]:
        found = self.shop.gov.store.read("SELECT id FROM actions WHERE state = 'parked'", {})
        return [str(row[0]) for row in found]

    def _answer(self, action_id: str, how: str) -> None:
        with suppress(StateConflict):
            if how == "denied":
                self.shop.deny(action_id)
            else:
                self.shop.approve(action_id)
            self.decided[how] += 1


def missing(shop: Shop, accepted: list[Asked]) -> list[str]:
    """Accepted actions that nobody has recorded, and later steps of chains whose first step succeeded."""
    states = dict(map(tuple, shop.gov.store.read("SELECT id, state FROM actions", {})))
    found = []
    for asked in accepted:
        first = states.get(asked.ids[0])
        if first is None:
            found.append(f"{asked.kind} {asked.ids[0]} was accepted and is not recorded")
        elif first == "succeeded" and asked.ids[-1] not in states:
            found.append(f"chain {asked.ids[0]} succeeded and its next step {asked.ids[1]} was never submitted")
    return found


def awaited(look: Callable[[], Any], deadline_s: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        with suppress(StoreUnavailable):
            if look():
                return True
        time.sleep(0.2)
    return False
