"""The token database of a NorFab worker: find it, and read it in place without trusting it.

It is a diskcache `FanoutCache`: folders `000`, `001` and so on, each with a `cache.db`. A row of its table `Cache` is a
token:

    key          text, `bearer_token::TOKEN`        raw          1
    tag          text, the user who stored it last  expire_time  epoch seconds, null for never
    value        pickle of `{"token": …, "username": …, "created": "2026-05-31 12:08:51.914919"}`, local time

Nothing is written there, and its worker may be running. Loading a pickle can run any code: only pickles made of the few
instructions that such a value needs are loaded, by an unpickler that resolves no names.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from ...models.environment.untrusted_sqlite import is_intact, open_untrusted
from ...models.errors import NorfabDatabaseError, validation_messages
from ...models.tasks.token_import import ImportedToken

READ_SECONDS = 30.0
MAX_DEPTH = 6
"""Levels below the named folder in which a database is searched."""
SHOWN_DATABASES = 10

_NAME = "cache.db"
_SHARD = re.compile(r"[0-9]{3}")
_KEY_PREFIX = b"bearer_token::"
_MAX_VALUE_BYTES = 64 * 1024
_FIELDS = {"token", "username", "created"}
_PLAIN_INSTRUCTIONS = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("SHORT_BINUNICODE", "BINUNICODE", "MEMOIZE", "BINPUT", "BINGET"),
    }
)
# diskcache's mode 4 is a pickle. Rows of text (1), as nfcli's own workers store them, are ignored. diskcache moves
# a value of 32 KiB or more to a separate file; a token's value is smaller, so such a file is never opened.
_SELECT = f"""
    SELECT key, tag, expire_time, typeof(tag) = 'text' AND typeof(expire_time) IN ('real', 'integer', 'null'),
           CASE WHEN mode = 4 AND filename IS NULL AND typeof(value) = 'blob' AND length(value) <= {_MAX_VALUE_BYTES}
                THEN value END
    FROM Cache
    WHERE raw = 1 AND typeof(key) = 'text' AND substr(key, 1, {len(_KEY_PREFIX)}) = '{_KEY_PREFIX.decode()}'
          AND (mode IS NOT 1 OR typeof(value) <> 'text')
    ORDER BY rowid
"""  # noqa: S608  made of constants of this module


@dataclass
class NorfabTokens:
    """Content of a database: tokens to import, and numbers of skipped records.

    `expired` records were not examined further. `invalid` ones break a rule; `reasons` has the message of the first one
    for each rule, without its token. `unreadable` ones have not the form that NorFab's workers write.
    """

    tokens: list[ImportedToken] = field(default_factory=list)
    expired: int = 0
    invalid: int = 0
    unreadable: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def refuse(self, rule: str, reason: str) -> None:
        """Count an invalid record."""
        self.invalid += 1
        self.reasons.setdefault(rule, reason)


def find_database(folder: Path) -> list[Path]:
    """Return the files of the only database in a folder or below it.

    A folder with a `cache.db` of its own counts as a database only if it is `folder` itself.

    Raises:
        NorfabDatabaseError: there is no database, there are several, or the folder can't be read.
    """
    errors: list[OSError] = []
    try:
        found = list(_databases(folder, errors))
        if not found and (folder / _NAME).is_file():
            return [folder / _NAME]
    except OSError as error:
        raise _unreadable(error) from error
    if not found and errors:
        raise _unreadable(errors[0])
    if not found:
        raise NorfabDatabaseError(
            f"{folder} has no NorFab worker's database (000/{_NAME} and so on): name the worker's cache folder, "
            "__norfab__/files/worker/NAME/cache"
        )
    if len(found) > 1:
        shown = [str(files[0].parent.parent) for files in found[:SHOWN_DATABASES]]
        shown += [f"{len(found) - SHOWN_DATABASES} more"] if len(found) > SHOWN_DATABASES else []
        raise NorfabDatabaseError(f"{folder} has {len(found)} databases: name one of them: {', '.join(shown)}")
    return found[0]


def _databases(top: Path, errors: list[OSError]) -> Iterator[list[Path]]:
    for name, folders, _files in os.walk(top, onerror=errors.append):
        folder = Path(name)
        folders.sort()
        files = [folder / each / _NAME for each in folders if _SHARD.fullmatch(each)]
        if files := [file for file in files if file.is_file()]:
            yield files
            folders.clear()
        elif len(folder.relative_to(top).parts) >= MAX_DEPTH:
            folders.clear()


def read_tokens(files: Sequence[Path], now: float) -> NorfabTokens:
    """Read the tokens of a database; count and skip invalid and unreadable records, and those expired at `now`.

    Raises:
        NorfabDatabaseError: a file can't be read, is damaged, or takes longer than `READ_SECONDS`.
    """
    found = NorfabTokens()
    for file in files:
        try:
            with open_untrusted(file, _parameters(file), READ_SECONDS) as connection:
                if not is_intact(connection):
                    raise _damaged(file)
                connection.text_factory = bytes  # planted texts need not be UTF-8
                for key, tag, expires, is_plain, pickled in connection.execute(_SELECT):
                    if expires is not None and is_plain and expires <= now:
                        found.expired += 1
                    elif is_plain and (stored := _unpickled(pickled)):
                        _add(found, stored, key, tag, expires)
                    else:
                        found.unreadable += 1
        except sqlite3.Error as error:
            raise _error(file, error) from error
        except OSError as error:
            raise _unreadable(error) from error
        except UnicodeDecodeError as error:  # Python's own, when SQLite quotes bytes of a damaged schema
            raise _damaged(file) from error
    return found


def _parameters(file: Path) -> str:
    """Return the SQLite parameters that open a file without creating or changing others beside it.

    A write-ahead log is read through its index, which isn't written to. A file without both isn't in use; it is opened
    as immutable, since locking it would create them.
    """
    log, index, journal = (file.with_name(file.name + ending) for ending in ("-wal", "-shm", "-journal"))
    has_index = _size(index) > 0
    if _size(log) > 0 and not has_index:
        raise NorfabDatabaseError(
            f"{file} can't be read with {log.name} but without {index.name}: copy the entire folder"
        )
    return "mode=ro&readonly_shm=1" if has_index or _size(journal) > 0 else "mode=ro&immutable=1"


def _size(file: Path) -> int:
    """Return a file's size, 0 if it is missing: a worker that ends removes its log and index."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _add(found: NorfabTokens, stored: dict[str, str], key: bytes, tag: bytes, expires: float | None) -> None:
    """Add a record's token, or count the record as invalid."""
    try:
        created = datetime.fromisoformat(stored["created"]).timestamp()
    except (ValueError, OverflowError, OSError):  # the latter two: out of range
        found.refuse("created", "created: must be a time, as YYYY-MM-DD HH:MM:SS")
        return
    try:
        token = ImportedToken(token=stored["token"], username=stored["username"], created=created, expires=expires)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_context=False, include_input=False)
        found.refuse(f"{first['loc']} {first['type']}", validation_messages(error)[0])
        return
    if key != _KEY_PREFIX + token.token.encode():
        found.refuse("key", "token: must be the one in the row's key")
    elif tag != token.username.encode():
        found.refuse(
            "tag",
            "username: two users have stored the token, store it for one with fastmcp auth create-token",
        )
    else:
        found.tokens.append(token)


def _unpickled(data: bytes | None) -> dict[str, str] | None:
    """Return the record of three texts in a pickle, None if it holds anything else; runs no code of the pickle."""
    try:
        if data is None or not all(each.name in _PLAIN_INSTRUCTIONS for each, _, _ in pickletools.genops(data)):
            return None
        value = PlainUnpickler(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001  an invalid pickle can raise anything
        return None
    if type(value) is dict and value.keys() == _FIELDS and all(type(text) is str for text in value.values()):
        return value
    return None


class PlainUnpickler(pickle.Unpickler):
    """Unpickler that resolves no names, so that a pickle can call nothing."""

    def find_class(self, _module: str, _name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError

    def persistent_load(self, _pid: Any) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError


def _unreadable(error: OSError) -> NorfabDatabaseError:
    return NorfabDatabaseError(
        f"{error.filename} can't be read: {error.strerror}: name a NorFab worker's cache folder that you can read"
    )


def _damaged(file: Path) -> NorfabDatabaseError:
    return NorfabDatabaseError(f"{file} is damaged or not a NorFab worker's database: use an intact copy of it")


def _error(file: Path, error: sqlite3.Error) -> NorfabDatabaseError:
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF:  # the upper bits refine the cause
        case sqlite3.SQLITE_INTERRUPT:
            return NorfabDatabaseError(f"{file} could not be read within {READ_SECONDS:g} s: use a copy of it")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY:
            return NorfabDatabaseError(f"{file} can't be read: check owner and mode of the file and its folder")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return NorfabDatabaseError(f"{file} is locked by another process: stop the NorFab worker")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return NorfabDatabaseError(f"{file} can't be read: {error}: check that disk")
        case _:
            return _damaged(file)
