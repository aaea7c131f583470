"""The servers a benchmark runs on: its own, in a temporary folder, gone with it. PostgreSQL waits for the disk."""

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from governance.store import migrate
from governance.store.engine import Store

ROOT: Final = Path(__file__).parents[1]
POLICY: Final = Path(__file__).with_name("policy.yaml")
DATABASES: Final = ("postgres", "sqlite")


@dataclass
class Servers:
    """A folder, and the servers in it that were asked for."""

    folder: Path
    postgres: PostgresServer | None
    broker: BrokerServer | None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def database(self, kind: str) -> str:
        """The URL of a new, migrated database."""
        name = f"bench_{next(self._numbers)}"
        if kind == "postgres":
            assert self.postgres is not None, "asked for when the servers were started"
            url = self.postgres.create_database(name)
        else:
            url = f"sqlite:///{self.folder / name}.db"
        store = Store(url)
        migrate.upgrade(store)
        store.close()
        return url


@contextmanager
def servers(databases: tuple[str, ...], *, broker: bool = False, connections_max: int = 100) -> Iterator[Servers]:
    """Starts what is needed and stops it again, whatever happens in between."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acp-bench-", ignore_cleanup_errors=True)))
        postgres = None
        if "postgres" in databases:
            postgres = PostgresServer(folder / "postgres", fsync=True, connections_max=connections_max)
            stack.callback(postgres.stop)
            postgres.start()
        valkey = None
        if broker:
            valkey = BrokerServer(folder / "broker")
            stack.callback(valkey.stop)
            valkey.start()
        yield Servers(folder, postgres, valkey)


def write_runs(runs: Mapping[str, Mapping[str, object]], kinds: tuple[str, ...], *, as_json: bool) -> None:
    """The figures of each database to stdout; in JSON those of the first one, and of all under `runs`."""
    answer: dict[str, object] = dict(runs[kinds[0]])
    if len(kinds) > 1:
        answer["runs"] = runs
    if as_json:
        print(json.dumps(answer))
    else:
        for run in runs.values():
            print("\n".join(f"{name:24} {value}" for name, value in run.items()), end="\n\n")


def chosen(database: str) -> tuple[str, ...]:
    """What `--database` names."""
    return DATABASES if database == "both" else (database,)
