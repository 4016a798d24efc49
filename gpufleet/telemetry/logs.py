"""structlog for all processes: JSON where a machine reads, lines for people on a terminal.

One event name per line (`plan.rejected`), everything else as fields. Lines of the standard library's loggers
(aiokafka, uvicorn) come out in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "json", "console"]


def configure(*, level: str = "INFO", format_: Format = "auto", stream: TextIO | None = None, **fields: Any) -> None:
    """Set up structlog and the standard library's root logger; may be called again.

    `format_` auto: console on a terminal, else JSON. `fields` (service, instance) are on every line of this context.
    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r} is not known: use DEBUG, INFO, WARNING or ERROR")
    out = stream or sys.stderr
    console = format_ == "console" or (format_ == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _printable,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keys of foreign records may hold bytes that are not UTF-8, as lone surrogates; no terminal takes those."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isascii():
            event[name] = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return event
