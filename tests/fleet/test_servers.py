"""The local servers start, keep their data, and end with whoever started them."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from acp_tasks.fleet.process import Process, ProcessFailed
from tests.support.fleet import ROOT, eventually


def client_of(server: BrokerServer) -> redis.Redis:
    assert server.port is not None
    return redis.Redis(port=server.port, decode_responses=True)


def test_a_durable_broker_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    server = BrokerServer(tmp_path / "broker", durable=True).start()
    url = server.url
    with client_of(server) as client:
        client.set("kept", "yes")
    server.stop()
    server.restart()
    assert server.url == url
    with client_of(server) as client:
        assert client.get("kept") == "yes"
    server.kill()
    server.restart(empty=True)
    with client_of(server) as client:
        assert client.get("kept") is None
    server.stop()


def test_two_brokers_have_two_ports(tmp_path: Path) -> None:
    first, second = BrokerServer(tmp_path / "a").start(), BrokerServer(tmp_path / "b").start()
    assert first.port != second.port
    first.stop()
    second.stop()


def test_postgres_comes_back_after_a_kill_with_what_was_committed(walkable_folder: Path) -> None:
    server = PostgresServer(walkable_folder / "killed").start()
    url = server.create_database("kept")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n integer)")
        connection.execute("INSERT INTO t VALUES (7)")
    server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    server.restart()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)
    server.stop()


OWNER = """
import sys, time, pathlib
from acp_tasks.fleet.{module} import {name}
server = {name}(pathlib.Path(sys.argv[1])).start()
print(server._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("module", "name"), [("broker", "BrokerServer"), ("postgres", "PostgresServer")])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_a_server_dies_with_its_owner(walkable_folder: Path, module: str, name: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(module=module, name=name), str(walkable_folder / name)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert owner.stdout is not None
    with owner:
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(pid), "the server is gone")


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def program(tmp_path: Path, code: str) -> Process:
    return Process("sample", [sys.executable, "-c", code], tmp_path / "sample.log")


def never() -> bool:
    return False


def test_a_program_that_ends_too_early_is_quoted(tmp_path: Path) -> None:
    process = program(tmp_path, "print('no such luck'); raise SystemExit(3)")
    with pytest.raises(
        ProcessFailed, match=r"sample ended with 3 before ready; the end of .*sample\.log:\n  no such luck"
    ):
        process.wait_until(never, "ready")


def test_a_program_that_is_not_ready_in_time_is_quoted(tmp_path: Path) -> None:
    process = program(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ProcessFailed, match="sample: not ready within"):
        process.wait_until(never, "ready", deadline_s=0.2)
    process.kill()


def test_a_program_that_does_not_want_to_end_is_ended(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = program(tmp_path, code)
    reads: Callable[[], bool] = lambda: "up" in process.log.read_text()  # noqa: E731
    process.wait_until(reads, "up")
    start = time.monotonic()
    assert process.stop(grace_s=0.2) == -signal.SIGKILL
    assert time.monotonic() - start < 10
