"""Logging: lines for people on a terminal, JSON for machines otherwise. Configured by the entry point only."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
import structlog.tracebacks
from structlog.typing import Processor

Format = Literal["auto", "pretty", "json"]


def configure(level: str, form: Format, *facts: Processor) -> None:
    """Sends structlog and the standard library's logging to standard error, in one form.

    Args:
        level: Least severe level shown: debug, info, warning or error.
        form: ``auto`` is pretty on a terminal and JSON otherwise.
        facts: Processors that add to each line what is known of its circumstances.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared = [*facts, *_shared_processors()]
    last = _renderers(form == "pretty" or (form == "auto" and sys.stderr.isatty()))
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *last])
    )
    # Libraries tell more than anyone wants to read below the level warning.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(True)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(pretty: bool) -> list[Processor]:
    # Tracebacks without local variables: those hold users' rows.
    if pretty:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    as_data = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(as_data), structlog.processors.JSONRenderer()]
