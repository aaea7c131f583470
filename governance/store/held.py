"""The connection of single statements on PostgreSQL, kept between them: the pool costs more than many of them."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, PoolProxiedConnection

from governance.store.prepared import Prepared


class Held:
    """At most one connection of the engine's pool. Whoever asks the pool lets go of it first."""

    def __init__(self, engine: Engine, *, pool_size: int) -> None:
        self._engine = engine
        # The only connection of a pool is everybody's.
        self._keeps = pool_size > 1
        self._idle: deque[PoolProxiedConnection] = deque()
        self._inherited = self._idle

    def run(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """One statement in autocommit; the rows of its answer. Raises psycopg.Error, and what the pool raises."""
        try:
            held = self._idle.pop()
        except IndexError:
            held = self._engine.raw_connection()
        driver = cast("psycopg.Connection[Any]", held.driver_connection)
        try:
            prepared = held.info.get("prepared")
            if prepared is None:
                prepared = held.info["prepared"] = Prepared(driver)
            held.info["statements"][0] += 1
            found: Sequence[Any] = prepared.run(sql, values)
        except BaseException as problem:
            if driver.info.transaction_status == TransactionStatus.IDLE:
                held.close()
            else:
                # It is broken, or an interrupt has left an answer on its way that the next statement would read.
                held.invalidate(problem)
            raise
        if self._idle or not self._keeps:
            held.close()
        else:
            self._idle.append(held)
        return found

    def let_go(self) -> None:
        """Gives it back to the pool."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                # Another thread was faster.
                return

    def forget(self) -> None:
        """It is the parent's. Not let go of, either: that would end it for the parent."""
        self._inherited, self._idle = self._idle, deque()
