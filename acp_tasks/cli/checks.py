"""What `acp doctor` looks at, one function each, in the order in which one thing needs the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from celery import Celery
from kombu.utils.url import maybe_sanitize_url

from acp_tasks import bootstrap, install, push
from acp_tasks.cli.context import celery_app
from acp_tasks.control import JOBS
from governance.config import Settings
from governance.errors import GovernanceError, StateDirUnusable
from governance.middleware.spool import Spool
from governance.operations import database, reports
from governance.policy_file import load_policy

_BROKER_S = 3
# A worker that was killed is of interest for a while; its row stays for ever.
_WORKERS_S = 3600.0
# What Celery's Redis transport does when it is told nothing.
_VISIBILITY_DEFAULT_S = 3600.0
_HAVE_VISIBILITY = ("redis", "rediss", "sentinel", "sqs", "gcpubsub")


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, and what to do unless it is well."""

    name: str
    status: Status
    detail: str
    advice: str | None = None


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is known."""
    yield _state_dir(settings)
    yield _policy(settings)
    try:
        revision = database.check_at(settings.store_url)
    except GovernanceError as problem:
        yield _failed("database", problem)
    else:
        yield Finding("database", Status.OK, f"{settings.masked()['database_url']} is at revision {revision}")
        yield _workers(settings)
    app = celery_app()
    yield _broker(app)
    yield _visibility(app)
    yield _alerts(settings)
    yield from _tasks(app)


def _state_dir(settings: Settings) -> Finding:
    try:
        spool = Spool(settings.state_dir / "spool")
    except StateDirUnusable as problem:
        return _failed("state directory", problem)
    where = str(settings.state_dir.resolve())
    if len(spool):
        return Finding(
            "state directory",
            Status.WARN,
            f"{where} is writable; {len(spool)} ends of actions wait in its spool for the database",
            "start a worker on this machine with this ACP_STATE_DIR: it writes them down",
        )
    return Finding("state directory", Status.OK, f"{where} is writable, its spool is empty")


def _policy(settings: Settings) -> Finding:
    if settings.policy is None:
        return Finding("policy", Status.OK, "the packaged default (ACP_POLICY is not set)")
    try:
        policy = load_policy(settings.policy)
    except GovernanceError as problem:
        return _failed("policy", problem)
    return Finding("policy", Status.OK, f"{settings.policy}: {len(policy.rules)} rules, {policy.hash[:12]}")


def _workers(settings: Settings) -> Finding:
    try:
        # Without the policy: one that is refused says nothing about the workers.
        gov = bootstrap.assemble(settings.model_copy(update={"policy": None})).gov
        known = reports.list_workers(gov, silent_s_max=_WORKERS_S)
    except GovernanceError as problem:
        return _failed("workers", problem)
    alive = [worker for worker in known if worker.alive]
    lapsed = [worker for worker in known if not worker.alive]
    detail = "; ".join(f"{worker.id} heard of {worker.silent_s:g} s ago" for worker in known[:20]) or "none"
    if not alive:
        return Finding("workers", Status.WARN, detail, "start one: celery -A acp_tasks worker")
    if lapsed:
        return Finding("workers", Status.WARN, detail, f"{len(lapsed)} fell silent: recovery takes over what they held")
    return Finding("workers", Status.OK, detail)


def _broker(app: Celery) -> Finding:
    url = str(app.conf.broker_write_url or app.conf.broker_url)
    try:
        with app.connection_for_write() as connection:
            url = connection.as_uri()
            connection.ensure_connection(
                max_retries=1, interval_start=0, interval_step=0, interval_max=0, timeout=_BROKER_S
            )
    except Exception as problem:
        # Every transport has its own errors, and one that is not installed or does not exist has others.
        advice = "start it, or set ACP_BROKER_URL; what is submitted meanwhile is published when it is back"
        return Finding("broker", Status.FAIL, f"{maybe_sanitize_url(url)} does not answer ({problem})", advice)
    return Finding("broker", Status.OK, f"{url} answers")


def _visibility(app: Celery) -> Finding:
    name = "visibility timeout"
    limit_s = app.conf.task_time_limit
    transport = str(app.conf.broker_write_url or app.conf.broker_url).partition(":")[0].partition("+")[0]
    if transport not in _HAVE_VISIBILITY:
        return Finding(name, Status.OK, f"the transport {transport} has none")
    options: dict[str, Any] = app.conf.broker_transport_options or {}
    timeout_s = float(options.get("visibility_timeout", _VISIBILITY_DEFAULT_S))
    if limit_s is None:
        return Finding(
            name,
            Status.WARN,
            f"{timeout_s:g} s, and tasks have no time limit",
            "set task_time_limit below it: the message of a longer attempt is delivered a second time",
        )
    if timeout_s <= limit_s:
        return Finding(
            name,
            Status.FAIL,
            f"{timeout_s:g} s is not more than the time limit of {limit_s:g} s",
            "raise broker_transport_options.visibility_timeout: an attempt that runs longer is delivered a second time",
        )
    return Finding(name, Status.OK, f"{timeout_s:g} s, more than the time limit of {limit_s:g} s")


def _alerts(settings: Settings) -> Finding:
    told = ["the signed webhook"] if settings.webhook_url else []
    told += [f"{len(settings.apprise_urls.split())} apprise receivers"] if settings.apprise_urls.split() else []
    problem = push.problem(settings)
    if problem is not None:
        return Finding("alerts", Status.FAIL, problem)
    whom = " and ".join(told) or "nobody (neither ACP_WEBHOOK_URL nor ACP_APPRISE_URLS is set): see acp alerts list"
    return Finding("alerts", Status.OK, f"told to {whom}")


def _tasks(app: Celery) -> Iterator[Finding]:
    try:
        app.loader.import_default_modules()
    except Exception as problem:
        # Whatever somebody's module raises at import is for them to read.
        yield Finding(
            "tasks", Status.FAIL, f"they cannot be imported: {type(problem).__name__}: {problem}", "mend the import"
        )
        return
    loose = install.ungoverned(app)
    if loose:
        advice = 'give them a GovernedTask base (Celery(..., task_cls="acp_tasks:GovernedTask")) or say governed=False'
        yield Finding(
            "tasks", Status.FAIL, f"not governed: {', '.join(loose)}", f"{advice}; no worker starts with them"
        )
    else:
        yield Finding("tasks", Status.OK, "every task is governed or says that it is not")
    out = [name for name in install.opted_out(app) if name not in JOBS]
    if out:
        yield Finding(
            "opted out", Status.WARN, ", ".join(out), "they run without limits, approval and audit: is that meant?"
        )
    else:
        yield Finding("opted out", Status.OK, "no task, but for the fleet's own periodic jobs")


def _failed(name: str, problem: GovernanceError) -> Finding:
    """The error's own text says what to do, after its colon."""
    return Finding(name, Status.FAIL, str(problem))
