"""docker-compose.yml, as far as it can be shown without Docker: its programs run as processes, and what it promises."""

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from acp_tasks.fleet.broker import free_port
from acp_tasks.fleet.process import Process, Stack
from governance.config import Settings
from tests.support.fleet import ROOT, eventually

COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# What we built ourselves; the rest are servers of others.
OURS = ("migrate", "worker", "control", "beat", "flower", "metrics")
SECRETS = {"POSTGRES_PASSWORD": "p", "BROKER_PASSWORD": "b", "FLOWER_BASIC_AUTH": "ops:secret"}


def filled(text: str) -> str:
    """As compose fills in `${NAME}`, `${NAME:-default}` and `${NAME:?problem}`."""
    return re.sub(
        r"\$\{(\w+)(?::[-?]([^}]*))?\}",
        lambda found: SECRETS.get(found[1], found[2] if ":-" in found[0] else ""),
        text,
    )


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def says(process: Process, words: str) -> bool:
    return words in process.words()


class Composed:
    """The services as processes of this machine: each replica in a folder of its own, on the tests' servers."""

    def __init__(self, folder: Path, stack: Stack, database_url: str, broker_url: str) -> None:
        self.folder, self.stack = folder, stack
        self.ports = {"5555": str(free_port()), "9464": str(free_port())}
        given = {name: filled(value) for name, value in SERVICES["flower"]["environment"].items() if name != "<<"}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ACP_")},
            **given,
            "ACP_DATABASE_URL": database_url,
            "ACP_BROKER_URL": broker_url,
            "ACP_POLICY": str(ROOT / "policy.yaml"),
            "ACP_STATE_DIR": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
        }

    def argv(self, command: list[str], replica: str) -> list[str]:
        program = {"acp": "acp_tasks.cli", "celery": "celery"}[command[0]]
        changes = {"0.0.0.0": "127.0.0.1", "%h": f"%h-{replica}", "/tmp/": f"{self.folder}/{replica}-", **self.ports}
        rest = [filled(part) for part in command[1:]]
        for before, after in changes.items():
            rest = [part.replace(before, after) for part in rest]
        return [sys.executable, "-m", program, *rest]

    def start(self, service: str, replica: str | None = None, command: list[str] | None = None) -> Process:
        name = replica or service
        argv = self.argv(command or SERVICES[service]["command"], name)
        return self.stack.add(Process(name, argv, self.folder / f"{name}.log", self.environment, cwd=self.folder))

    def health(self, service: str) -> int:
        """The end of the service's health check, run as the orchestrator would."""
        check: list[str] = SERVICES[service]["healthcheck"]["test"]
        assert check[0] == "CMD"
        return self.start(service, f"health-{service}", check[1:]).wait(30)

    def get(self, port: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as problem:
            return problem.code, ""
        except OSError:
            return 0, ""


@pytest.fixture
def composed(tmp_path: Path, postgres_url: str, broker_url: str) -> Iterator[Composed]:
    with Stack() as stack:
        yield Composed(tmp_path, stack, postgres_url, broker_url)


@pytest.mark.fleet
@pytest.mark.postgres
def test_the_services_work_together_as_processes(composed: Composed) -> None:
    assert composed.start("migrate").wait(60) == 0
    workers = [composed.start("worker", f"worker-{number}") for number in (1, 2)]
    control = composed.start("control")
    beats = [composed.start("beat", f"beat-{number}") for number in (1, 2)]
    flower, metrics = composed.start("flower"), composed.start("metrics")
    for worker in (*workers, control):
        worker.wait_until(partial(says, worker, " ready."), "ready", 60)
    for beat in beats:
        beat.wait_until(partial(says, beat, "beat: Starting"), "started", 60)

    assert (composed.health("worker"), composed.health("control"), composed.health("beat")) == (0, 0, 0)
    eventually(lambda: composed.get("5555", "/healthcheck")[0] == 200, "Flower answers", 60)
    assert composed.get("5555", "/api/workers")[0] == 401
    wanted = {"acp_workers 2.0", "acp_control_workers 1.0", "acp_beats 2.0", "acp_worker_slots 8.0"}
    eventually(lambda: wanted <= set(composed.get("9464", "/metrics")[1].splitlines()), "all are counted", 30)

    # An action from outside is done by an agents' worker, beat's jobs by the control worker.
    code = "from acp_tasks.app import app; print(app.tasks['case.reply'].delay('c1', 'a bill').get(timeout=60))"
    client = Process(
        "client",
        [sys.executable, "-c", f"import acp_tasks.agents.desk; {code}"],
        composed.folder / "client.log",
        composed.environment,
        cwd=composed.folder,
    )
    composed.stack.add(client)
    assert client.wait(60) == 0, client.last_words()
    assert "'answered': True" in client.words()
    assert sum(says(worker, "Task case.reply[") for worker in workers) == 1
    eventually(lambda: says(control, "Task acp.recovery["), "the control worker sweeps", 30)
    assert not any(says(worker, "Task acp.") for worker in workers)

    for process in (*beats, flower, metrics, *workers, control):
        os.kill(process.pid, 15)
    for process in (*beats, metrics, *workers, control):
        assert process.wait(30) == 0, process.last_words()


def test_the_file_is_valid_by_the_schema_of_compose() -> None:
    schema = json.loads((ROOT / "tests" / "support" / "compose-spec.json").read_text())
    assert [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(COMPOSE)] == []


def test_docker_compose_resolves_the_file_where_it_is_installed() -> None:
    def compose(*arguments: str, **secrets: str) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        argv = ["docker", "compose", "--project-directory", str(ROOT), "--env-file", os.devnull, *arguments]
        return subprocess.run(
            argv, env={**environment, **secrets}, capture_output=True, text=True, timeout=60, check=False
        )

    try:
        installed = compose("version").returncode == 0
    except OSError:
        installed = False
    if not installed:
        pytest.skip("no docker compose here; its schema is checked everywhere")
    resolved = compose("config", "--format", "json", **SECRETS)
    assert resolved.returncode == 0, resolved.stderr
    assert set(json.loads(resolved.stdout)["services"]) == set(SERVICES)
    lacking = compose("config", **{name: value for name, value in SECRETS.items() if name != "BROKER_PASSWORD"})
    assert lacking.returncode != 0
    assert "put BROKER_PASSWORD into .env" in lacking.stderr


def test_workers_can_be_scaled_and_have_time_to_end() -> None:
    settings = COMPOSE["x-environment"]
    for name in ("worker", "control", "beat"):
        assert not {"container_name", "ports", "hostname"} & set(SERVICES[name]), name
    for name in ("worker", "control"):
        grace_s = seconds(SERVICES[name]["stop_grace_period"])
        assert grace_s > float(settings["ACP_TIME_LIMIT_S"]) > float(settings["ACP_SOFT_TIME_LIMIT_S"])
    assert SERVICES["beat"]["deploy"]["replicas"] == 2


def test_the_broker_keeps_its_messages_and_the_database_has_room() -> None:
    redis = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in redis
    assert "--maxmemory-policy noeviction" in redis
    room = int(re.search(r"max_connections=(\d+)", " ".join(SERVICES["postgres"]["command"]))[1])  # type: ignore[index]
    # Ten workers of four children, a control worker of two, two beats, Flower, the metrics and some commands.
    processes = 10 * 5 + 3 + 2 + 1 + 1 + 3
    assert processes * int(COMPOSE["x-environment"]["ACP_POOL_SIZE"]) < room


def test_every_setting_and_secret_is_one_that_is_known() -> None:
    known = {f"ACP_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in COMPOSE["x-environment"] if name.startswith("ACP_")}
    assert given <= known
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    example = (ROOT / ".env.example").read_text()
    assert (
        asked == {line.partition("=")[0] for line in example.splitlines() if re.match(r"[A-Z]", line)} == set(SECRETS)
    )


def test_services_name_only_what_is_there_and_ours_run_the_image_without_root() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), (name, volume)
        assert "healthcheck" in service or name == "migrate", name
    for name in OURS:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
    image = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:\S+-slim$", image, re.MULTILINE)
    assert re.search(r"^USER \d+$", image, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {Requirement(line).name for line in project["project"]["optional-dependencies"]["dev"]} - {"acp-tasks"}
    # The lock is also the developers': what only they use is not in the image; jsonschema comes with `mcp`.
    assert needed - set(image.replace("\\\n", " ").split()) == {"jsonschema"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE)
    assert all((ROOT / path).exists() for line in copied for path in line.split())
