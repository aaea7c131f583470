"""A shop with one worker and beat, on each database, shared by the tests that do not break it; and a command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from acp_tasks.tracing import OpenTelemetry
from governance import tracing
from governance.clock import SystemClock
from tests.support.asking import TWO_LEADS
from tests.support.fleet import Shop
from tests.support.governed import Desk, make_governance
from tests.support.terminal import Terminal


@pytest.fixture(scope="module")
def shop(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, broker_address: str) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(folder, module_database_url, broker_address)
    try:
        worker = shop.worker()
        shop.beat()
        worker.ready()
        yield shop
    finally:
        shop.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A command line in a folder of its own, under a policy in which two people let money leave."""
    return Terminal(tmp_path, policy=TWO_LEADS)


@pytest.fixture
def desk(terminal: Terminal) -> Iterator[Desk]:
    """What the command line looks at; `root` may type."""
    gov = make_governance(f"sqlite:///{terminal.database}", clock=SystemClock(), policy=terminal.policy)
    terminal.enroll("root", "admin")
    yield Desk(gov)
    gov.store.close()


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Takes the spans of this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(OpenTelemetry(provider))
    yield exporter
    tracing.use(None)
    provider.shutdown()
