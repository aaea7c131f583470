"""Echoes: messages whose command_id made another action. Each waits for that one's outcome, and is told it."""

from governance.store.engine import Store


def keep(store: Store, echo_id: str, first_id: str, message: str, now_us: int, *, published: bool) -> None:
    """Records an echo; one that is known is only marked as published now, or as to be published."""
    store.run(
        """INSERT INTO echoes (id, first_id, message, created_us, published_us, publish_count)
            VALUES (:id, :first, :message, :now, CAST(:published AS bigint), 1)
            ON CONFLICT (id) DO UPDATE SET published_us = excluded.published_us""",
        {
            "id": echo_id,
            "first": first_id,
            "message": message,
            "now": now_us,
            "published": now_us if published else None,
        },
    )


def told(store: Store, echo_id: str) -> None:
    """Forgets an echo: whoever calls this tells it."""
    store.run("DELETE FROM echoes WHERE id = :id", {"id": echo_id})


def due(store: Store, *, stale_us: int, now_us: int, limit: int) -> list[tuple[str, str]]:
    """(id, message) of echoes whose first action has ended, claimed for publication by this call.

    One that was published and not told since `stale_us` was lost; the interval doubles with every publication.
    """
    return [
        (str(row[0]), str(row[1]))
        for row in store.run(
            """UPDATE echoes SET published_us = :now, publish_count = publish_count + 1 WHERE id IN (
                SELECT e.id FROM echoes e LEFT JOIN actions a ON a.id = e.first_id
                WHERE (a.id IS NULL OR a.state IN ('succeeded', 'failed', 'denied', 'cancelled'))
                AND (e.published_us IS NULL OR e.published_us > :now + CAST(:stale AS bigint)
                    OR e.published_us + CAST(:stale AS bigint) * (1 << (CASE WHEN e.publish_count > 8 THEN 8
                        ELSE e.publish_count - 1 END)) <= :now)
                ORDER BY e.created_us, e.id LIMIT :limit) RETURNING id, message""",
            {"now": now_us, "stale": stale_us, "limit": limit},
        )
    ]
