"""A producer and a direct call refuse a database of another release, as the command line and a worker do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from governance.store import migrate
from governance.store.engine import Store
from tests.support.fleet import ROOT

_CALLS = """
from tests.support import shop
for call in (lambda: shop.ask.delay("c1"), lambda: shop.add(1, 2)):
    try:
        print("made", call())
    except Exception as problem:
        print(type(problem).__name__, problem)
"""


@pytest.mark.parametrize("revision", ["0001", "0013"])
@pytest.mark.parametrize("url_of", ["sqlite_url", "postgres_url"])
def test_nothing_is_submitted_or_run(
    url_of: str, revision: str, request: pytest.FixtureRequest, tmp_path: Path, broker_address: str
) -> None:
    url = request.getfixturevalue(url_of)
    store = Store(url)
    migrate.upgrade(store, revision)
    ran = subprocess.run(
        [sys.executable, "-c", _CALLS],
        env={
            **os.environ,
            "ACP_DATABASE_URL": url,
            "ACP_BROKER_URL": broker_address,
            "ACP_STATE_DIR": str(tmp_path / "state"),
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("SchemaMismatch ")
        assert f"revision {revision}" in line
        assert "acp db upgrade" in line
    assert store.read("SELECT count(*) FROM actions", {}) == [(0,)]
    store.close()
