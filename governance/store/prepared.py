"""Hand-written statements on one PostgreSQL connection, prepared once, past the driver's cursor.

A cursor finds out anew for every execution what a statement is: it parses it, looks for its preparation, describes its
columns. On the path of an action that is half of what a client does. The driver still writes the parameters, waits for
the server and reads the rows, so types, interrupts and errors are the same as with a cursor.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import psycopg
from psycopg.abc import Transformer as Reader
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_NAMED: Final = re.compile(r"(?<!:):([a-z_0-9]+)")
_STATEMENTS_MAX: Final = 200


class Prepared:
    """The statements of one connection: from its second execution on, each is prepared, by its types of parameters."""

    def __init__(self, driver: "psycopg.Connection[Any]") -> None:
        self._driver = driver
        self._writer = Transformer(driver)
        self._names = count()
        # The name on the server, and how the columns are read; None: seen once.
        self._kept: dict[tuple[str, tuple[int, ...]], tuple[bytes, Reader] | None] = {}

    def run(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """Sends the statement (`:name` parameters) and returns the rows of its answer. Raises psycopg.Error."""
        text, names, formats = _numbered(sql)
        writer, pgconn = self._writer, self._driver.pgconn
        written = writer.dump_sequence(
            [_array(value) if isinstance(value, list) else value for value in map(values.__getitem__, names)], formats
        )
        types = writer.types or ()
        kept = self._prepared(sql, text, types)
        if kept is None:
            reader: Reader = Transformer(self._driver)
            pgconn.send_query_params(text, written, param_types=types, param_formats=writer.formats)
        else:
            name, reader = kept
            pgconn.send_query_prepared(name, written, param_formats=writer.formats)
        try:
            result = self._answer()
        except InvalidSqlStatementName:
            # The driver's own cursors deallocate everything after a rollback. Nothing was done.
            self._kept.clear()
            return self.run(sql, values)
        if result.status != ExecStatus.TUPLES_OK:
            return ()
        reader.set_pgresult(result, set_loaders=reader.pgresult is None)
        return reader.load_rows(0, result.ntuples, tuple)

    def _prepared(self, sql: str, text: bytes, types: tuple[int, ...]) -> tuple[bytes, Reader] | None:
        key = sql, types
        kept = self._kept.get(key)
        if kept is None:
            if key in self._kept:
                name = b"acp_%d" % next(self._names)
                self._driver.pgconn.send_prepare(name, text, types)
                self._answer()
                kept = self._kept[key] = name, Transformer(self._driver)
            elif len(self._kept) < _STATEMENTS_MAX:
                self._kept[key] = None
        return kept

    def _answer(self) -> PGresult:
        results: list[PGresult] = self._driver.wait(execute(self._driver.pgconn))
        if results[-1].status == ExecStatus.FATAL_ERROR:
            raise error_from_result(results[-1], encoding=self._driver.info.encoding)
        return results[-1]


_numbers: dict[str, tuple[bytes, tuple[str, ...], list[PyFormat]]] = {}


def _numbered(sql: str) -> tuple[bytes, tuple[str, ...], list[PyFormat]]:
    """The statement with `$1` for the first of its names, the names in that order, and their formats."""
    known = _numbers.get(sql)
    if known is None:
        names: dict[str, int] = {}
        text = _NAMED.sub(lambda found: f"${names.setdefault(found[1], len(names) + 1)}", sql)
        known = _numbers[sql] = text.encode(), tuple(names), [PyFormat.AUTO] * len(names)
    return known


def _array(values: list[Any]) -> str:
    """A list as PostgreSQL writes an array; its statement says what of."""
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
