"""The composition root: settings → store → governance, once per process and again after a fork.

A worker names itself in `ACP_WORKER=<id>|<pid of its main process>`, so that its pool children, forked or spawned, take
their leases in its name; any other process that runs an action by itself takes them in its own name and beats for it.
"""

import os
import socket
import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from uuid_utils.compat import uuid7

from governance.clock import SystemClock
from governance.config import Settings, load_settings
from governance.core.actions import Lease
from governance.core.alerts import Thresholds
from governance.core.policy import Policy
from governance.core.signing import Keyring
from governance.middleware.spool import Spool
from governance.operations import database
from governance.operations.context import Governance, Limits
from governance.policy_file import canonical, packaged_policy, parse_policy, read_policy
from governance.store.engine import Store

_WORKER = "ACP_WORKER"
# How the id of a process begins that runs an action without being a worker.
DIRECT = "direct@"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process of the fleet works with."""

    settings: Settings
    gov: Governance
    spool: Spool


@lru_cache(maxsize=1)
def parts() -> Parts:
    """This process's parts. Raises SettingsInvalid, PolicyInvalid, StoreUnavailable, StateDirUnusable."""
    return assemble(load_settings())


def governance() -> Governance:
    return parts().gov


def assemble(settings: Settings) -> Parts:
    """Puts a process together from `settings`; nothing is kept, see `parts` for the process's own."""
    spool = Spool(settings.state_dir / "spool")
    if settings.tracing:
        # Imported here: without it nothing of it is there.
        from acp_tasks import tracing

        tracing.start()
    policy, source = _policy(settings.policy)
    gov = Governance(
        store=Store(settings.store_url, pool_size=settings.pool_size),
        clock=SystemClock(settings.time_scale, settings.time_origin_us),
        policy=policy,
        policy_source=source,
        new_id=new_id,
        signing=Keyring(settings.signing_secrets) if settings.signing_secrets else None,
        limits=Limits(
            attempts_max=settings.attempts_max,
            heartbeat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
            relay_s=settings.relay_s,
            time_limit_s=settings.time_limit_s,
        ),
    )
    return Parts(settings, gov, spool)


def check_schema() -> None:
    """Once in a process, before it writes what a database of another release would take for something else.

    Raises SchemaMismatch, StoreUnavailable, and then again next time.
    """
    _check_schema(governance().store.masked_url)


@lru_cache(maxsize=1)
def _check_schema(_url: str) -> None:
    # Remembered for one database: a process may be given another one.
    database.check(governance())


def thresholds(settings: Settings) -> Thresholds:
    """What the alert rules go by."""
    return Thresholds(
        approval_age_s=settings.alert_approval_age_s,
        budget_percents=settings.alert_budget_percents,
        forecast_percent=settings.alert_forecast_percent,
        rate_factor=settings.alert_rate_factor,
        denials_min=settings.alert_denials_min,
        recoveries_min=settings.alert_recoveries_min,
        exhausted_min=settings.alert_exhausted_min,
        model_denials_min=settings.alert_model_denials_min,
        beat_s=settings.alert_beat_s,
        scan_s=settings.alert_scan_s,
    )


def new_id() -> str:
    """Time-ordered, so that rows of one time lie together; its random bits are per process and fork-safe."""
    return str(uuid7())


def name_worker(nodename: str) -> str:
    """Gives this worker process its identity, new at every start; called in its main process before the pool forks."""
    worker_id = f"{nodename}#{new_id()}"
    os.environ[_WORKER] = f"{worker_id}|{os.getpid()}"
    return worker_id


def worker_id() -> str | None:
    """The worker that this process belongs to, if it is one or its pool child."""
    name, _, main_pid = os.environ.get(_WORKER, "").rpartition("|")
    return name if name and main_pid in (str(os.getpid()), str(os.getppid())) else None


def is_pool_child() -> bool:
    """Whether this process is a pool child of a worker, and not its main process."""
    return os.environ.get(_WORKER, "").rpartition("|")[2] == str(os.getppid())


def lease() -> Lease:
    """In whose name this process and thread take an attempt."""
    child = str(os.getpid())
    if threading.current_thread() is not threading.main_thread():
        child += f":{threading.get_ident()}"
    return Lease(worker_id() or _own_name(os.getpid()), child)


@lru_cache(maxsize=1)
def _own_name(pid: int) -> str:
    return f"{DIRECT}{socket.gethostname()}:{pid}#{new_id()}"


def _policy(path: Path | None) -> tuple[Policy, str]:
    if path is None:
        source = "the packaged default policy"
        text = packaged_policy()
    else:
        source, text = str(path), read_policy(path)
    return parse_policy(text, source), canonical(text)


def _before_fork() -> None:
    if parts.cache_info().currsize:
        parts().gov.store.before_fork()


def _after_fork(*, in_child: bool) -> None:
    if parts.cache_info().currsize:
        parts().gov.store.after_fork(in_child=in_child)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, in_child=False),
    after_in_child=partial(_after_fork, in_child=True),
)
