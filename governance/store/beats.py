"""Heartbeats of schedulers: one row for each beat process."""

from governance.store.engine import Store


def alive(store: Store, beat_id: str, host: str, pid: int, now_us: int) -> None:
    """Registers it, or says that it still is."""
    store.run(
        """INSERT INTO beats (id, host, pid, started_us, heartbeat_us) VALUES (:id, :host, :pid, :now, :now)
            ON CONFLICT (id) DO UPDATE SET heartbeat_us = :now""",
        {"id": beat_id, "host": host, "pid": pid, "now": now_us},
    )


def forget(store: Store, before_us: int) -> None:
    """Deletes those that have been silent since."""
    store.run("DELETE FROM beats WHERE heartbeat_us < :before", {"before": before_us})


def stopped(store: Store, beat_id: str, now_us: int) -> None:
    store.run("UPDATE beats SET stopped_us = :now WHERE id = :id", {"id": beat_id, "now": now_us})


def heard_of(store: Store, since_us: int) -> list[tuple[str, str, int]]:
    """(id, host, heartbeat) of beats that were heard of since then and did not say goodbye, the liveliest first."""
    found = store.read(
        """SELECT id, host, heartbeat_us FROM beats WHERE stopped_us IS NULL AND heartbeat_us >= :since
            ORDER BY heartbeat_us DESC, id""",
        {"since": since_us},
    )
    return [(str(row[0]), str(row[1]), int(row[2])) for row in found]
