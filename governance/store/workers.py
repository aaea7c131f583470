"""Heartbeats: one row for each worker process, not for each action."""

from collections.abc import Mapping
from typing import Any

from governance.store.engine import Store

_OWNS = "w.id IN (SELECT a.lease_worker FROM actions a WHERE a.delivered_us IS NULL AND a.state = 'running')"


def register(
    store: Store,
    worker_id: str,
    pid: int,
    now_us: int,
    *,
    host: str | None,
    queues: str | None,
    slots: int | None,
    ready_us: int | None,
) -> None:
    """`queues` is a JSON list. All four are None for a process that is no worker."""
    store.run(
        """INSERT INTO workers (id, pid, started_us, heartbeat_us, host, queues, slots, ready_us)
            VALUES (:id, :pid, :now, :now, :host, :queues, :slots, :ready)
            ON CONFLICT (id) DO UPDATE SET heartbeat_us = :now""",
        {
            "id": worker_id,
            "pid": pid,
            "now": now_us,
            "host": host,
            "queues": queues,
            "slots": slots,
            "ready": ready_us,
        },
    )


def beat(store: Store, worker_id: str, now_us: int, slots: int | None) -> bool:
    """False when there is no such row."""
    return bool(
        store.run(
            "UPDATE workers SET heartbeat_us = :now, slots = :slots WHERE id = :id RETURNING id",
            {"id": worker_id, "now": now_us, "slots": slots},
        )
    )


def ready(store: Store, worker_id: str, now_us: int) -> None:
    store.run("UPDATE workers SET ready_us = :now WHERE id = :id", {"id": worker_id, "now": now_us})


def stopped(store: Store, worker_id: str, now_us: int) -> None:
    store.run("UPDATE workers SET stopped_us = :now WHERE id = :id", {"id": worker_id, "now": now_us})


def forget(store: Store, before_us: int) -> None:
    """Deletes those that own nothing and have been silent since: one from the future is of another clock, and stays."""
    store.run(f"DELETE FROM workers AS w WHERE w.heartbeat_us < :before AND NOT ({_OWNS})", {"before": before_us})


def count(store: Store) -> int:
    """Workers that have not said goodbye: what a recovery sweep looks at."""
    return int(store.read("SELECT count(*) FROM workers WHERE stopped_us IS NULL", {})[0][0])


def lapsed(store: Store, *, lapse_us: int, now_us: int) -> dict[str, int]:
    """Workers that own attempts and were not heard of for so long, with their last heartbeat.

    One from as far in the future is of a clock that has been put back since, and as suspicious.
    """
    found = store.read(
        f"""SELECT w.id, w.heartbeat_us FROM workers w WHERE w.stopped_us IS NULL AND {_OWNS}
            AND (w.heartbeat_us < :lapsed OR w.heartbeat_us > :ahead)""",
        {"lapsed": now_us - lapse_us, "ahead": now_us + lapse_us},
    )
    return {str(row[0]): int(row[1]) for row in found}


def gone(store: Store) -> list[str]:
    """Workers that own attempts and said goodbye."""
    found = store.read(f"SELECT w.id FROM workers w WHERE w.stopped_us IS NOT NULL AND {_OWNS} ORDER BY w.id", {})
    return [str(row[0]) for row in found]


def heard_of(store: Store, since_us: int) -> list[Mapping[str, Any]]:
    """Workers that beat since then and did not say goodbye, the liveliest first."""
    columns = ("id", "pid", "started_us", "heartbeat_us", "host", "queues", "slots", "ready_us")
    found = store.read(
        f"""SELECT {", ".join(columns)} FROM workers
            WHERE stopped_us IS NULL AND heartbeat_us >= :since ORDER BY heartbeat_us DESC, id""",
        {"since": since_us},
    )
    return [dict(zip(columns, row, strict=True)) for row in found]
