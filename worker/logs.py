"""What a worker's log lines look like: JSON for machines, text for terminals; and what is kept out.

Celery's own lines and those of every library come the same way. Whatever a line says:
- a URL loses its query, which may hold a signature, and its password, a data: URL all it holds;
- a secret (of callbacks, a key, a password, a signature) loses all but its kind;
- control characters are escaped, so that no job's id or image can begin a line of its own;
- a value is cut off where it is longer than lines are for.

Celery says of each task that it was received, and what it returned: the captions. Instead there is
one line for each job (worker/job_log.py); at DEBUG, Celery's as well.
"""

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any, Literal

import structlog

from worker.job_log import KEYS

__all__ = ["TRACE_ID", "LogFormat", "dress", "is_text", "safe"]

LogFormat = Literal["auto", "json", "text"]

TRACE_ID: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace of what this thread is at, where it is traced: lines that it writes say so."""

MAX_VALUE = 2_000
MAX_TRACEBACK = 20_000

_BROKER = re.compile(r"((?:rediss?|sentinel|amqps?)://)[^\s\"'<>]{0,500}@", re.IGNORECASE)
"""A broker's password may hold anything; nothing behind it has an @."""
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}:(?:/|\\/){2})(?P<user>[^\s/?#\"'<>]*@)?"
    r"(?P<rest>[^\s?#\"'<>]*)(?P<query>[?#][^\s\"'<>]*)?"
)
_SECRET = re.compile(
    r"(whsec_|bearer |authorization:? ?basic |"
    r"(?:password|passwd|secret|token|signature|credential|\bsig|"
    r"(?:api|access|secret|signing)_?key)[\"']?(?:=|: ?(?=[\"']))[\"']?)[^\s,;&\"'\\]+",
    re.IGNORECASE,
)
"""Also what signs a URL, wherever the URL began."""
_DATA = re.compile(r"\bdata:[\w/+.;=-]*,[^\s\"'<>]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_SUSPECT = ("//", "\\/", "whsec_", "earer ", "EARER ", "asic ", "ASIC ", "=", ": '", ': "', "data:")
"""Printable texts without any of these are safe as they are: one look for a whole line."""

TOLD_BY_THE_JOBS_LINE = ("celery.app.trace", "celery.worker.strategy")


def dress(handlers: Iterable[logging.Handler], kind: LogFormat, *, quiet: bool = True) -> None:
    """Let handlers write lines of a kind. auto: text where standard error is a terminal. `quiet`
    lets the jobs' lines stand for Celery's of each task."""
    for handler in handlers:
        handler.setFormatter(_formatter(is_text(kind)))
    if quiet:
        for name in TOLD_BY_THE_JOBS_LINE:
            logging.getLogger(name).setLevel(logging.WARNING)


def is_text(kind: LogFormat) -> bool:
    """Whether lines of a kind are for people."""
    return kind == "text" or (kind == "auto" and sys.stderr.isatty())


def safe(text: str, most: int = MAX_VALUE, *, lines: bool = False) -> str:
    """A text as it may be logged; with `lines`, its line feeds are its own.

    >>> safe("from https://me:pw@host/a.png?X-Amz-Signature=1 on\\njob forged")
    'from https://***@host/a.png?*** on\\\\njob forged'
    """
    if len(text) > most:
        text = f"{text[:most]}... ({len(text)} characters)"
    text = _DATA.sub("data:***", _BROKER.sub(r"\1***@", text))
    text = _SECRET.sub(r"\1***", _URL.sub(_without_secrets, text))
    control = _CONTROL_BUT_LINES if lines else _CONTROL
    return control.sub(lambda one: ascii(one[0])[1:-1], text)


def _without_secrets(url: re.Match[str]) -> str:
    user = "***@" if url["user"] else ""
    query = f"{url['query'][0]}***" if url["query"] else ""
    return f"{url['scheme']}{user}{url['rest']}{query}"


def _formatter(for_people: bool) -> logging.Formatter:
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
        if for_people
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(allow=KEYS),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _made_safe,
            renderer,
        ],
    )


def _with_trace(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if trace_id := TRACE_ID.get():
        event["trace_id"] = trace_id
    return event


def _made_safe(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    texts = " ".join(value for value in event.values() if isinstance(value, str))
    plain = len(texts) <= MAX_VALUE and texts.isascii() and texts.isprintable()
    if plain and not any(word in texts for word in _SUSPECT):
        return event
    for key, value in event.items():
        if isinstance(value, str):
            traced = key == "exception"
            most = MAX_TRACEBACK if traced else MAX_VALUE
            event[key] = safe(value, most, lines=traced)
    return event
