"""The doctor on the broker: whether it answers, forgets, survives a restart, and delivers twice."""

from collections.abc import Iterator, Mapping
from typing import Any

import redis
from celery import Celery

from acp_tasks.cli.checks.finding import Finding, Status
from acp_tasks.cli.context import broker_problem

# What Celery's Redis transport does when it is told nothing.
_VISIBILITY_DEFAULT_S = 3600.0
_HAVE_VISIBILITY = ("redis", "rediss", "sentinel", "sqs", "gcpubsub")
_REDIS = ("redis", "rediss", "unix", "sentinel")
_RELAY_HELPS = "the relay publishes actions again, but results and chords are lost"


def broker(app: Celery) -> Finding:
    problem = broker_problem()
    if problem is not None:
        advice = "start it, or set ACP_BROKER_URL; what is submitted meanwhile is published when it is back"
        return Finding("broker", Status.FAIL, problem, advice)
    with app.connection_for_write() as connection:
        return Finding("broker", Status.OK, f"{connection.as_uri()} answers")


def eviction(app: Celery) -> Iterator[Finding]:
    """Nothing for a broker that is not Redis or Valkey."""
    if _transport(app) not in _REDIS:
        return
    name = "broker eviction"
    said = _memory(app)
    policy = said.get("maxmemory_policy")
    if policy is None:
        advice = "see that it is noeviction, or let this user ask: INFO memory, or CONFIG GET maxmemory-policy"
        yield Finding(name, Status.WARN, "the broker does not say its maxmemory-policy", advice)
    elif policy == "noeviction":
        yield Finding(name, Status.OK, "noeviction: a full broker refuses messages and forgets none")
    else:
        full = int(said.get("maxmemory") or 0) > 0
        advice = f"set maxmemory-policy noeviction: {_RELAY_HELPS}"
        detail = f"{policy}: a full broker forgets messages" + ("" if full else " (maxmemory is not set, so never yet)")
        yield Finding(name, Status.FAIL if full and policy.startswith("allkeys") else Status.WARN, detail, advice)


def persistence(app: Celery) -> Iterator[Finding]:
    """Nothing for a broker that is not Redis or Valkey."""
    if _transport(app) not in _REDIS:
        return
    name = "broker persistence"
    enabled = _info(app, "persistence").get("aof_enabled")
    if enabled is None:
        advice = "see that appendonly is yes, or let this user ask: INFO persistence"
        yield Finding(name, Status.WARN, "the broker does not say whether it is append-only", advice)
    elif int(enabled):
        yield Finding(name, Status.OK, "append-only: a restart keeps its messages")
    else:
        yield Finding(name, Status.WARN, "a restart empties it", f"set appendonly yes: {_RELAY_HELPS}")


def visibility(app: Celery) -> Finding:
    """The timeout against the longest limit of all registered tasks."""
    name = "visibility timeout"
    transport = _transport(app)
    if transport not in _HAVE_VISIBILITY:
        return Finding(name, Status.OK, f"the transport {transport} has none")
    options: dict[str, Any] = app.conf.broker_transport_options or {}
    timeout_s = float(options.get("visibility_timeout", _VISIBILITY_DEFAULT_S))
    limits = {task.name: task.time_limit or app.conf.task_time_limit for task in app.tasks.values() if _runs(task)}
    unlimited = sorted(task for task, limit_s in limits.items() if limit_s is None)
    if unlimited:
        return Finding(
            name,
            Status.WARN,
            f"{timeout_s:g} s, and {_named(unlimited)} have no time limit",
            "set task_time_limit below it: the message of a longer attempt is delivered a second time",
        )
    task, limit_s = max(limits.items(), key=lambda item: (float(item[1] or 0), item[0]))
    what = f"the time limit of {float(limit_s or 0):g} s, the longest ({task})"
    if timeout_s <= float(limit_s or 0):
        return Finding(
            name,
            Status.FAIL,
            f"{timeout_s:g} s is not more than {what}",
            "raise broker_transport_options.visibility_timeout: an attempt that runs longer is delivered a second time",
        )
    return Finding(name, Status.OK, f"{timeout_s:g} s, more than {what}")


def _runs(task: Any) -> bool:
    """Celery's own tasks only move messages."""
    return type(task).__module__ != "celery.app.builtins"


def _named(tasks: list[str]) -> str:
    return ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")


def _transport(app: Celery) -> str:
    return str(app.conf.broker_write_url or app.conf.broker_url).partition(":")[0].partition("+")[0]


def _memory(app: Celery) -> Mapping[str, Any]:
    """What INFO says; of a server that refuses it, or is too old for it, what CONFIG says."""
    said = _info(app, "memory")
    if "maxmemory_policy" in said:
        return said
    try:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            found: Mapping[str, Any] = channel.client.config_get("maxmemory*")
    except redis.RedisError:
        return {}
    return {name.replace("-", "_"): value for name, value in found.items()}


def _info(app: Celery, section: str) -> Mapping[str, Any]:
    try:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            said: Mapping[str, Any] = channel.client.info(section)
            return said
    except redis.RedisError:
        return {}
