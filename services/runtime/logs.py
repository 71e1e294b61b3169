"""Structured logs: one line a transition, readable at a terminal, JSON for a collector.

No line holds a prompt, a text, a plan's words or a key, unless texts are asked for: see `texts`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_log = structlog.get_logger()
_wants_texts = False


def texts(event: str, **fields: object) -> None:
    """Log prompts and texts, at level debug, if this process was told to; else do nothing."""
    if _wants_texts:
        _log.debug(event, **fields)


def configure(
    level: str = "info", style: str = "auto", *, with_texts: bool = False, **bound: str
) -> None:
    """Set up logging of this process to stderr.

    Args:
        level: least severe line to log.
        style: `console`, `json`, or `auto` (console if stderr is a terminal).
        with_texts: log prompts and texts too, at level debug.
        bound: fields that stand in every line, such as the service's name.
    """
    global _wants_texts
    _wants_texts = with_texts
    for_eyes = style == "console" or (style == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=_processors(for_eyes=for_eyes),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_factory(for_eyes=for_eyes),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
    # Libraries log by the standard module; only what is wrong is of interest.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    logging.getLogger("asyncio").addFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Drop what asyncio says at each end of a TLS connection of nats-py: nobody can do anything."""
    return "eof_received()" not in record.getMessage()


def _processors(*, for_eyes: bool) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
    ]
    if for_eyes:
        return [
            *shared,
            structlog.processors.TimeStamper("%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    return [
        *shared,
        structlog.processors.TimeStamper("iso", utc=True),
        # Without locals: they hold prompts and texts.
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(serializer=orjson.dumps),
    ]


def _factory(*, for_eyes: bool) -> structlog.PrintLoggerFactory | structlog.BytesLoggerFactory:
    if for_eyes:
        return structlog.PrintLoggerFactory(sys.stderr)
    return structlog.BytesLoggerFactory(sys.stderr.buffer)
