"""The worker's log: JSON lines in a private file, with all credentials masked.

    {"time", "level", "logger", "message"} and, with an exception, "errors": [{"type", "message", "where"}, …]

Times are ISO 8601 in UTC. Libraries quote their input, so credentials are masked in the formatted message. Exceptions
are logged by their class and stack, without values.
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
from ..models.inventory.masking import MASK

MAX_LOG_FILE_BYTES = 10 * 1024 * 1024
LOG_FILES_KEPT = 3

# Not those that logging knows: libraries add names of their own.
_LEVELS = {name: getattr(logging, name) for name in ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")}
_LIBRARIES = ("asyncio", "mcp", "uvicorn", "uvicorn.access", "uvicorn.asgi", "uvicorn.error", "zmq")
_MAX_ERRORS = 5
_MAX_PLACES = 12

_QUOTED = r"""b?"(?:\\.|[^"\\])*"|b?'(?:\\.|[^'\\])*'"""
_REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A header in its usual spelling: all of the credential, blanks in it included, up to a quote or the line's end.
    (re.compile(r"""\bBearer\s+[^"'\r\n]+"""), f"Bearer {MASK}"),
    (re.compile(r"""\b(bearer)\s+[^\s"']+""", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"""\bbearer_token::[^\s"',;)\]}]*"""), f"bearer_token::{MASK}"),
    (
        re.compile(r"""(?<![\w:])(\w+[_-])?(authorization)(\s*[:=]\s*)[^\s"'][^"'\r\n]*""", re.IGNORECASE),
        rf"\1\2\3{MASK}",
    ),
    # "token": "…", 'authorization': …, ("authorization", "…"), token=…
    (
        re.compile(
            rf"""(?P<key>(?P<quote>["'])(?:\w+[_-])?(?:token|authorization)(?P=quote)\s*[:=,]\s*
                 | (?<![\w:])(?:\w+[_-])?(?:token|authorization)\s*(?:=|:(?!:))\s*)
                 (?:{_QUOTED}|[^\s"',;)\]}}][^\s,;)\]}}]*)""",
            re.IGNORECASE | re.VERBOSE,
        ),
        rf"\g<key>{MASK}",
    ),
)


def mask_credentials(text: str) -> str:
    """Return `text` with everything masked that may be a credential; in doubt too much.

    That is what follows `Bearer ` and `bearer_token::`, and the values of keys whose name is or ends in `token` or
    `authorization`, in JSON, Python, header and `key=value` notation.
    """
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(path: Path, level: str) -> Callable[[], None]:
    """Send all logging of this process to `path` as redacted JSON lines; return a function that undoes it.

    The file has mode 0600 and is rotated at 10 MiB; three older ones are kept. `level`, in upper or lower case, is the
    lowest that is logged; libraries log at INFO at most, because their debug lines quote whole messages. If the log
    can't be written, that is reported once on stderr and stops nothing.

    Raises:
        UsageError: there is no such level.
        EnvironmentFolderError, OSError: the file can't be opened privately.
    """
    number = _LEVELS.get(level.upper())
    if number is None:
        raise UsageError(f"log level must be one of {', '.join(_LEVELS)}, got {level[:40]!r}")
    handler = _PrivateFile(path)
    undo = [_adopt(logging.getLogger(), [handler], number)]
    undo += [_adopt(logging.getLogger(name), [], max(number, logging.INFO)) for name in _LIBRARIES]

    def restore() -> None:
        for step in undo:
            step()
        with suppress(OSError, ValueError):  # a full disk has been reported, and must not prevent the worker's stop
            handler.close()

    return restore


def reopen_log_file() -> None:
    """Reopen the log's file, for a program that has moved it away; nothing happens where there is none."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _PrivateFile):
            handler.reopen()


def _adopt(logger: logging.Logger, handlers: list[logging.Handler], level: int) -> Callable[[], None]:
    """Give a logger these handlers and no others; return a function that undoes it."""
    former = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = handlers, True
    logger.setLevel(level)

    def restore() -> None:
        logger.handlers[:], logger.propagate = former[0], former[2]
        logger.setLevel(former[1])

    return restore


class _JsonLines(logging.Formatter):
    """One JSON object per line, in ASCII, so that a terminal that shows it interprets nothing."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_credentials(_text(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["errors"] = [_described(error) for error in _chain(record.exc_info[1])]
        return json.dumps(line)


class _PrivateFile(RotatingFileHandler):
    """A rotating file whose mode is 0600 from the start, whatever the umask."""

    def __init__(self, path: Path) -> None:
        self._has_reported = False
        super().__init__(path, maxBytes=MAX_LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8")
        self.setFormatter(_JsonLines())

    def _open(self) -> TextIOWrapper:
        return open_private(Path(self.baseFilename), "a")  # type: ignore[return-value]

    def reopen(self) -> None:
        """Write to a new file if the one that was written to has been moved; if none can be opened, go on with that."""
        self.acquire()
        try:
            new = self._open()
        except (OSError, NfcliError):
            logging.getLogger(__name__).exception("the log can't be reopened")
        else:
            old, self.stream = self.stream, new
            if old is not None:
                old.close()
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002  logging's name and signature
        """Report once that the log can't be written; the default would print the call's arguments."""
        if not self._has_reported:
            self._has_reported = True
            kind, error, _ = sys.exc_info()
            reason = error.strerror if isinstance(error, OSError) else getattr(kind, "__name__", "unknown")
            with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or there is none
                sys.stderr.write(f"nfcli: the log {self.baseFilename} can't be written: {reason}\n")


def _text(record: logging.LogRecord) -> str:
    """Return a record's formatted message; only the format if the arguments don't fit it."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  an argument's own `__str__` may raise anything
        return f"{record.msg} (arguments don't fit: {type(error).__name__})"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, the last one first."""
    seen: BaseException | None = error
    for _ in range(_MAX_ERRORS):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    """Describe an exception without values.

    Only messages of nfcli's own errors and of the system are included: any other may be a secret, as in
    `KeyError('secret')`.
    """
    places = traceback.extract_tb(error.__traceback__)[-_MAX_PLACES:]
    described: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, NfcliError):
        described["message"] = mask_credentials(str(error))
    elif isinstance(error, OSError) and error.strerror:
        described["message"] = error.strerror
    described["where"] = [f"{place.filename}:{place.lineno} {place.name}" for place in places]
    return described
