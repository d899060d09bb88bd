"""The worker's log: JSON lines in a private file, with every credential taken out.

    {"time", "level", "logger", "message"} and, with an exception, "errors": [{"type", "message", "where"}, …]

Times are ISO 8601 in UTC. Libraries quote what they were given, so redaction is done on the finished text of a line,
and an exception is logged by its class and the places it passed, never with the values that were around.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from ..models.environment.private_files import open_private
from ..models.errors import NfcliError, UsageError

LOG_FILE_MAX_BYTES = 10 * 1024 * 1024
LOG_FILES_KEPT = 3

# Not those that logging knows: libraries add names of their own.
_LEVELS = {name: getattr(logging, name) for name in ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")}
_LIBRARIES = ("asyncio", "mcp", "uvicorn", "uvicorn.access", "uvicorn.asgi", "uvicorn.error", "zmq")
_MAX_ERRORS = 5
_MAX_PLACES = 12
_HIDDEN = "***"

_QUOTED = r"""b?"(?:\\.|[^"\\])*"|b?'(?:\\.|[^'\\])*'"""
_REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A header in its usual spelling: all of the credential, blanks in it included, up to a quote or the line's end.
    (re.compile(r"""\bBearer\s+[^"'\r\n]+"""), f"Bearer {_HIDDEN}"),
    (re.compile(r"""\b(bearer)\s+[^\s"']+""", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    (re.compile(r"""\bbearer_token::[^\s"',;)\]}]*"""), f"bearer_token::{_HIDDEN}"),
    (
        re.compile(r"""(?<![\w:])(\w+[_-])?(authorization)(\s*[:=]\s*)[^\s"'][^"'\r\n]*""", re.IGNORECASE),
        rf"\1\2\3{_HIDDEN}",
    ),
    # "token": "…", 'authorization': …, ("authorization", "…"), token=…
    (
        re.compile(
            rf"""(?P<key>(?P<quote>["'])(?:\w+[_-])?(?:token|authorization)(?P=quote)\s*[:=,]\s*
                 | (?<![\w:])(?:\w+[_-])?(?:token|authorization)\s*(?:=|:(?!:))\s*)
                 (?:{_QUOTED}|[^\s"',;)\]}}][^\s,;)\]}}]*)""",
            re.IGNORECASE | re.VERBOSE,
        ),
        rf"\g<key>{_HIDDEN}",
    ),
)


def redact(text: str) -> str:
    """Return `text` without what may be a credential.

    That is what follows `Bearer `, what follows `bearer_token::`, and the values of keys named `token` or
    `authorization` (or whose name ends in one of them), in JSON, Python, header and `key=value` notation. Rather too
    much than too little is taken out.
    """
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(path: Path, level: str, *, console: bool) -> Callable[[], None]:
    """Send all logging of this process to `path` as redacted JSON lines, and to stderr as text when `console` is true.

    The file is 0600 and kept at 10 MiB, with three older ones beside it. Libraries log at INFO at most: their debug
    lines quote whole messages. A log that can't be written is said once on stderr and stops nothing.

    Args:
        path: the log file; its folder exists.
        level: name of the lowest level that is logged, in any case.
        console: whether a person is looking at stderr.

    Returns:
        A function that puts the former configuration back and closes the file.

    Raises:
        UsageError: no such level.
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    number = _LEVELS.get(level.upper())
    if number is None:
        raise UsageError(f"log level must be one of {', '.join(_LEVELS)}, got {level[:40]!r}")
    handlers: list[logging.Handler] = [_PrivateFile(path)]
    if console:
        handlers.append(_Console())
    undo = [_adopt(logging.getLogger(), handlers, number)]
    undo += [_adopt(logging.getLogger(name), [], max(number, logging.INFO)) for name in _LIBRARIES]

    def restore() -> None:
        for step in undo:
            step()
        for handler in handlers:
            with suppress(OSError, ValueError):  # a full disk has been told of; it mustn't spoil the worker's stop
                handler.close()

    return restore


def _adopt(logger: logging.Logger, handlers: list[logging.Handler], level: int) -> Callable[[], None]:
    """Give a logger these handlers and no others; return what undoes it."""
    former = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = handlers, True
    logger.setLevel(level)

    def restore() -> None:
        logger.handlers[:], logger.propagate = former[0], former[2]
        logger.setLevel(former[1])

    return restore


class _JsonLines(logging.Formatter):
    """One JSON object a line; ASCII only, so nothing in it acts on a terminal that shows it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc_text(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(_text(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["errors"] = [_described(error) for error in _chain(record.exc_info[1])]
        return json.dumps(line)


class _ConsoleLines(logging.Formatter):
    """One short line for a person; of an exception only its class, the log file has the rest."""

    def format(self, record: logging.LogRecord) -> str:
        message = _text(record)
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message} ({type(record.exc_info[1]).__name__})"
        shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in message)
        return f"{datetime.fromtimestamp(record.created, UTC).astimezone():%H:%M:%S} {record.levelname} {redact(shown)}"


class _PrivateFile(RotatingFileHandler):
    """A rotating file whose mode is 0600 from the start, whatever the umask."""

    def __init__(self, path: Path) -> None:
        self._has_complained = False
        super().__init__(path, maxBytes=LOG_FILE_MAX_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8")
        self.setFormatter(_JsonLines())

    def _open(self) -> TextIOWrapper:
        return open_private(Path(self.baseFilename), "a")  # type: ignore[return-value]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002  logging's name and signature
        """Say once that the log can't be written; logging's own way prints the arguments of the call."""
        if not self._has_complained:
            self._has_complained = True
            kind, error, _ = sys.exc_info()
            reason = error.strerror if isinstance(error, OSError) else getattr(kind, "__name__", "unknown")
            _say(f"nfcli: the log {self.baseFilename} can't be written: {reason}")


class _Console(logging.StreamHandler[Any]):
    """Lines on stderr; a closed or broken stderr is nobody's fault and nobody's news."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_ConsoleLines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Do nothing."""


def _text(record: logging.LogRecord) -> str:
    """Return a record's finished text; where format and arguments don't fit, the format tells where to look."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  an argument's own `__str__` may raise anything
        return f"{record.msg} (arguments don't fit: {type(error).__name__})"


def _say(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
    except (OSError, ValueError, AttributeError):  # stderr is closed, or there is none
        return


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it, the last one first."""
    seen: BaseException | None = error
    for _ in range(_MAX_ERRORS):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    """Describe an exception without values.

    Only our own errors and the system's are quoted: the message of any other class may be the value that broke it, as
    `KeyError('secret')` is.
    """
    places = traceback.extract_tb(error.__traceback__)[-_MAX_PLACES:]
    described: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, NfcliError):
        described["message"] = redact(str(error))
    elif isinstance(error, OSError) and error.strerror:
        described["message"] = error.strerror
    described["where"] = [f"{place.filename}:{place.lineno} {place.name}" for place in places]
    return described


def _utc_text(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds")
