"""Log lines: structlog for ours and for the standard library's alike, each with the action it belongs to."""

import logging
import sys
from typing import Any

import structlog

from governance.config import load_settings
from governance.errors import SettingsInvalid


def configure(level: Any = None, file: str | None = None) -> None:
    """Sends every log line through one renderer, to stderr or to `file`."""
    try:
        as_json = load_settings().log_json
    except SettingsInvalid:
        as_json = False
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ]
        if as_json
        else [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.FileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_level(level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _level(level: Any) -> int:
    if isinstance(level, int):
        return level
    return logging.getLevelNamesMapping().get(str(level or "INFO").upper(), logging.INFO)
