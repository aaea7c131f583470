"""What `acp doctor` looks at, one function each, in the order in which one thing needs the other."""

from collections.abc import Iterator

from celery import Celery

from acp_tasks import bootstrap, install, push
from acp_tasks.cli.checks.broker import broker, eviction, persistence, visibility
from acp_tasks.cli.checks.finding import Finding, Status, failed
from acp_tasks.cli.checks.fleet import beats, clocks, connections, control_queue, workers
from acp_tasks.cli.context import celery_app
from acp_tasks.control import JOBS
from acp_tasks.waking import NAME as WAKE
from governance.config import Settings
from governance.errors import GovernanceError, StateDirUnusable
from governance.middleware.spool import Spool
from governance.operations import database, processes
from governance.operations.context import Governance
from governance.policy_file import load_policy

__all__ = ["Finding", "Status", "examine"]

# A worker that was killed is of interest for a while; its row stays for ever.
_WORKERS_S = 3600.0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is known."""
    yield _state_dir(settings)
    yield _policy(settings)
    yield _signing(settings)
    try:
        revision = database.check_at(settings.store_url)
        # Without the policy: one that is refused says nothing about the fleet.
        gov = bootstrap.assemble(settings.model_copy(update={"policy": None})).gov
    except GovernanceError as problem:
        yield failed("database", problem)
    else:
        yield Finding("database", Status.OK, f"{settings.masked()['database_url']} is at revision {revision}")
        yield from _fleet(settings, gov)
        gov.store.close()
    app = celery_app()
    answers = broker(app)
    yield answers
    if answers.status is Status.OK:
        yield from eviction(app)
        yield from persistence(app)
    yield _alerts(settings)
    tasks = list(_tasks(app))
    # After the tasks are imported: each may have a time limit of its own.
    yield visibility(app)
    yield from tasks


def _fleet(settings: Settings, gov: Governance) -> Iterator[Finding]:
    try:
        known = processes.list_workers(gov, silent_s_max=_WORKERS_S)
        schedulers = processes.list_beats(gov, silent_s_max=_WORKERS_S)
        yield workers(known)
        yield beats(known, schedulers)
        yield control_queue(known)
        yield from connections(gov, settings.pool_size, known, schedulers)
        yield from clocks(gov)
    except GovernanceError as problem:
        yield failed("fleet", problem)


def _state_dir(settings: Settings) -> Finding:
    try:
        spool = Spool(settings.state_dir / "spool")
    except StateDirUnusable as problem:
        return failed("state directory", problem)
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
        return failed("policy", problem)
    return Finding("policy", Status.OK, f"{settings.policy}: {len(policy.rules)} rules, {policy.hash[:12]}")


def _signing(settings: Settings) -> Finding:
    keys = list(settings.signing_secrets)
    if not keys:
        return Finding(
            "signing", Status.OK, "not asked for (ACP_SIGNING_KEYS is not set): whoever publishes is believed"
        )
    others = f", {', '.join(keys[1:])} {'is' if len(keys) == 2 else 'are'} known besides" if keys[1:] else ""
    return Finding("signing", Status.OK, f"this process signs with {keys[0]}{others}; what is not signed is refused")


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
    out = [name for name in install.opted_out(app) if name not in (*JOBS, WAKE)]
    if out:
        yield Finding(
            "opted out", Status.WARN, ", ".join(out), "they run without limits, approval and audit: is that meant?"
        )
    else:
        yield Finding("opted out", Status.OK, "no task, but for the fleet's own periodic jobs")
