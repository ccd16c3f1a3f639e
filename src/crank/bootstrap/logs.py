"""Logging of the node's processes: one JSON line an event on stderr, which the keeper sends to a file."""

import sys

import structlog


def log_to_stderr(role: str, *, plain: bool = False) -> None:
    """Set up structlog for this process. `plain` is for a person who watches."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False) if plain else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
