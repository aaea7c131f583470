"""The producing process of one app, told what to do line by line on stdin, answering in JSON on stdout.

`ready N` waits for N workers; `run N` publishes N actions one by one and waits until the last one has its result.
Completion is read from the result backend: how many results there are, cheap to ask, and only then which.
"""

import importlib
import json
import sys
import time
from typing import Any

import redis

_DEADLINE_S = 300.0


def main() -> None:
    noop = importlib.import_module(sys.argv[1]).noop
    for line in sys.stdin:
        verb, number = line.split()
        answer = _ready(noop, int(number)) if verb == "ready" else _run(noop, int(number))
        print(json.dumps(answer), flush=True)


def _ready(noop: Any, workers: int) -> dict[str, object]:
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        if len(noop.app.control.ping(timeout=0.5)) >= workers:
            return {"ok": True}
    return {"ok": False, "problem": f"fewer than {workers} workers answered within 60 s"}


def _run(noop: Any, actions: int) -> dict[str, object]:
    results: Any = redis.Redis.from_url(noop.app.conf.result_backend)
    # Outcomes of the round before; the broker has a database of its own.
    results.flushdb()
    began_s = time.perf_counter()
    ids = [noop.delay(number).id for number in range(actions)]
    published_s = time.perf_counter()
    succeeded = _wait(noop, results, ids)
    ended_s = time.perf_counter()
    if succeeded != actions:
        return {"ok": False, "problem": f"{succeeded} of {actions} actions succeeded within {_DEADLINE_S:g} s"}
    return {"ok": True, "seconds": ended_s - began_s, "publish_seconds": published_s - began_s}


def _wait(noop: Any, results: Any, ids: list[str]) -> int:
    """How many succeeded, once every one has ended or the deadline has passed."""
    end = time.monotonic() + _DEADLINE_S
    waiting = [noop.backend.get_key_for_task(action_id) for action_id in ids]
    succeeded = 0
    while waiting and time.monotonic() < end:
        time.sleep(0.01)
        if results.dbsize() < len(ids):
            continue
        states = [json.loads(kept)["status"] if kept else None for kept in results.mget(waiting)]
        succeeded += states.count("SUCCESS")
        waiting = [key for key, state in zip(waiting, states, strict=True) if state in (None, "PENDING", "STARTED")]
    return succeeded


if __name__ == "__main__":
    main()
