"""The Celery app of the fleet, from Settings: `celery -A acp_tasks worker|beat|flower`. The values' reasons are in
docs/operations.md, each measured.
"""

import sys
from typing import Any

from celery import Celery
from kombu.utils.imports import symbol_by_name

from acp_tasks.agents.desk_loop import desk_loop
from acp_tasks.agents.horizons import find_horizon
from governance.config import Settings, load_settings
from governance.errors import GovernanceError

# The longest an approval may be waited for; a chord's counters must outlive it.
_APPROVAL_S_MAX = 30 * 24 * 3600


def make_app(settings: Settings) -> Celery:
    """The fleet's app: every task governed, the support desk's tasks, beat's schedule."""
    desk = ["acp_tasks.agents.desk", "acp_tasks.agents.desk_agent"]
    app = Celery("acp_tasks", task_cls="acp_tasks:GovernedTask", include=desk)
    app.conf.update(celery_settings(settings))
    if settings.horizon:
        desk_loop(app, find_horizon(settings.horizon))
    # By name: the schedule stands above this package and knows it, not the other way round.
    app.conf.beat_schedule = symbol_by_name("beat_schedule:SCHEDULE")
    return app


def celery_settings(settings: Settings) -> dict[str, Any]:
    """What a governed fleet wants of Celery on Redis."""
    visibility_timeout_s = settings.time_limit_s + 600
    return {
        "broker_url": settings.broker_url,
        "result_backend": settings.results_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": visibility_timeout_s,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_time_limit": settings.time_limit_s,
        "task_soft_time_limit": settings.soft_time_limit_s,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 5.0,
        "worker_enable_soft_shutdown_on_idle": True,
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "result_backend_always_retry": True,
        "result_backend_thread_safe": True,
        "result_backend_transport_options": {
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.2}
        },
        "result_chord_expires": _APPROVAL_S_MAX,
        "result_expires": _APPROVAL_S_MAX,
        "result_extended": True,
        "beat_sync_every": 1,
        "beat_max_loop_interval": 2,
    }


try:
    app = make_app(load_settings())
except GovernanceError as problem:
    sys.exit(str(problem))
