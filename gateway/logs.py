"""What processes log: structured lines on standard error, JSON unless a person is watching a terminal.

A log line never holds a body, a credential, a customer's number or a query string; it names entries by their ids.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import orjson
import structlog

from gateway.lines import LineWriter


@contextmanager
def off_loop(level: str) -> Iterator[LineWriter]:
    """Within, this process' loggers write in a thread: a pipe that nobody reads stops no event loop."""
    writer = LineWriter()
    configure(level=level, writer=writer)
    try:
        yield writer
    finally:
        configure(level=level)
        writer.close()


def configure(*, level: str = "info", writer: LineWriter | None = None) -> None:
    """True on return: every logger of this process writes one line an event to standard error.

    With `writer` it does so in a thread, so that a reader who is slow stops no event loop.
    """
    stream: TextIO = sys.stderr if writer is None else cast("TextIO", writer)
    at_least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(at_least),
            logger_factory=structlog.WriteLoggerFactory(stream),
        )
        return
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(at_least),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
