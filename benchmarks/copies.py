"""Rows in bulk: copies of real ones, made by the database itself, so that a large state is one that can happen."""

import sys
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from governance.operations.context import Governance
from governance.store import schema
from governance.store.engine import rows

_INSERTED_AT_ONCE = 20_000
_NUMBERED = (schema.trail.events, schema.ledger.entries)
_COPY = """INSERT INTO {table} ({columns}) WITH RECURSIVE copies(n) AS
    (SELECT CAST(:first AS bigint) UNION ALL SELECT n + 1 FROM copies WHERE n < :last)
    SELECT {values} FROM {table}, copies WHERE {key}"""


def copy(
    gov: Governance, table: Table, key: str, count: int, changed: Mapping[str, str], values: Mapping[str, Any]
) -> None:
    """Copies every row of `table` under the condition `key` that many times.

    `changed` are SQL expressions by column, in which `n` counts the copies from 0 and `{column}` is the original's.
    """
    _said(f"{count} times {table.name}")
    columns = [column.name for column in table.columns if table not in _NUMBERED or column.name != "id"]
    sql = _COPY.format(
        table=table.name,
        columns=", ".join(f'"{column}"' for column in columns),
        values=", ".join(changed.get(column, "{column}").format(column=f'"{column}"') for column in columns),
        key=key,
    )
    for first in range(0, count, _INSERTED_AT_ONCE):
        last = min(first + _INSERTED_AT_ONCE, count) - 1
        with gov.store.transaction() as connection:
            if gov.store.is_postgresql:
                # Foreign keys hold by construction.
                rows(connection, "SELECT set_config('session_replication_role', 'replica', true)", {})
            rows(connection, sql, {**values, "first": first, "last": last})


def settled(gov: Governance) -> None:
    """Has the database look at what it holds now, and write it out, as it does by itself after a while."""
    if not gov.store.is_postgresql:
        gov.store.run("ANALYZE", {})
        return
    with gov.store.statement() as connection:
        rows(connection, "SET statement_timeout = 0", {})
        rows(connection, "VACUUM (ANALYZE)", {})
        rows(connection, "CHECKPOINT", {})
        rows(connection, "RESET statement_timeout", {})


def _said(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
