"""What a PostgreSQL server says of itself; SQLite has no server."""

from governance.store.engine import Store


def connections(store: Store) -> tuple[int, int] | None:
    """(how many ordinary users may have, how many there are), all databases together."""
    if not store.is_postgresql:
        return None
    usable, in_use = store.read(
        """SELECT (SELECT sum(CASE WHEN name = 'max_connections' THEN setting::int ELSE -setting::int END)
                FROM pg_settings
                WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')),
            (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')""",
        {},
    )[0]
    return int(usable), int(in_use)


def clock_us(store: Store) -> int | None:
    """The server's clock now, in microseconds."""
    if not store.is_postgresql:
        return None
    found = store.read("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)", {})
    return int(found[0][0])
