"""Logs: JSON lines on standard error, set up once a process."""

import logging
import sys
from typing import Any, Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import ExcInfo

from domain.errors import BulkheadError

# Whose messages are names and numbers of ours, or of the machine. Those of everything else quote:
# a database what it could not store, a parser what it could not read.
_QUOTES_NOTHING: Final = frozenset(
    error.__name__
    for error in (
        BulkheadError,
        ConnectionRefusedError,
        ConnectionResetError,
        FileNotFoundError,
        PermissionError,
        TimeoutError,
    )
)

_WITHOUT_LOCALS: Final = ExceptionDictTransformer(show_locals=False, max_frames=20)


def configure_logging(level: str) -> None:
    """Send our own log and the libraries' to standard error, one JSON object a line.

    Of an exception they show its kind and its places: local variables and most messages hold what
    somebody has sent.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_places_of),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # These name every request at INFO; ours are logged where they matter.
    for noisy in ("httpx", "httpcore", "urllib3", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _places_of(exc_info: ExcInfo) -> list[dict[str, Any]]:
    return _quoting_nothing(_WITHOUT_LOCALS(exc_info))


def _quoting_nothing(stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for stack in stacks:
        if stack["exc_type"] not in _QUOTES_NOTHING:
            stack["exc_value"] = ""
        stack["exc_notes"], stack["syntax_error"] = [], None
        # A group's own.
        for inner in stack["exceptions"]:
            _quoting_nothing(inner)
    return stacks
