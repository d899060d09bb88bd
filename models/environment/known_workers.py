"""The workers that clients of an environment have seen, in `.nfcli/workers.json`, until they are forgotten.

The file is `{"version": 1, "workers": {NAME: TIME}}`: TIME is when the worker was last seen, ISO 8601 in UTC, exact to
`RENEW_AFTER`. It is replaced atomically, and changed under a lock, so concurrent shells lose nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from ..errors import EnvironmentFolderError
from .file_lock import locked_change
from .paths import Environment
from .private_files import open_private, write_private

MAX_WORKERS = 1_000
"""Names come from a broker, where others may register any: more are not stored."""
MAX_NAME_CHARACTERS = 256
RENEW_AFTER = timedelta(hours=1)
LOCK_SECONDS = 1.0

_VERSION = 1
_MAX_FILE_BYTES = 4 * 1024 * 1024

_Signature = tuple[int, int, int, int]


class KnownWorkers:
    """The workers that were seen, by name, and when each was last; used by one thread at a time.

    `lock_seconds` is how long a change waits for those of other processes.
    """

    def __init__(self, environment: Environment, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._file = environment.known_workers_file
        self._lock_seconds = lock_seconds
        self._signature: _Signature | None = None
        self._workers: dict[str, datetime] = {}

    def read(self) -> Mapping[str, datetime]:
        """Return the workers; the file is only read if it has changed since the last time.

        Raises:
            EnvironmentFolderError: the file can't be read, isn't private, or is no list of workers.
        """
        try:
            if _signature(os.lstat(self._file)) != self._signature:
                self._load()
        except FileNotFoundError:
            self._signature, self._workers = None, {}
        except OSError as error:
            raise EnvironmentFolderError(f"{self._file} can't be read: {error.strerror}") from error
        return self._workers

    def add(self, names: Collection[str], now: datetime) -> list[str]:
        """Store that workers were seen at `now`; the file is only written if that is news.

        Returns:
            The names that are not stored because there are `MAX_WORKERS` already, or that no command could name.

        Raises:
            EnvironmentFolderError: as `read`; or the file can't be written, or is locked for `lock_seconds`.
        """
        stored = self.read()
        refused = [name for name in names if name not in stored and not _is_storable(name)]
        wanted = [name for name in names if name not in refused]
        if _has_news(stored, wanted, now):
            with self._changing() as workers:
                for name in wanted:
                    if name in workers or len(workers) < MAX_WORKERS:
                        workers[name] = now
            stored = self._workers
        return [name for name in names if name not in stored]

    def forget(self, name: str) -> bool:
        """Remove a worker; return whether there was one of that name.

        Raises:
            EnvironmentFolderError: as `add`.
        """
        if name not in self.read():
            return False
        with self._changing() as workers:
            return workers.pop(name, None) is not None

    def _load(self) -> None:
        with open_private(self._file, "rb") as stream:
            signature = _signature(os.fstat(stream.fileno()))
            data = stream.read(_MAX_FILE_BYTES)  # the beginning of a longer one is no JSON
        try:
            self._workers = _decode(data)
        except (ValueError, RecursionError):
            fault = f"{self._file} is not a list of workers that this version of nfcli can read"
            raise EnvironmentFolderError(
                f"{fault}: move it away, and name the workers that are expected under fleet in the inventory"
            ) from None
        self._signature = signature

    @contextmanager
    def _changing(self) -> Iterator[dict[str, datetime]]:
        """Provide the workers for a change of them, which is written at the end of the block."""
        with locked_change(self._file, self._lock_seconds):
            workers = dict(self.read())
            yield workers
            write_private(self._file, _encode(workers))
            self._workers, self._signature = workers, _signature(os.lstat(self._file))


def utc_now() -> datetime:
    """Return the time as it is stored, in whole seconds."""
    return datetime.fromtimestamp(int(time.time()), UTC)


def _decode(data: bytes) -> dict[str, datetime]:
    """Return the workers in the content of the file; ValueError if it has none or another form."""
    document = json.loads(data)
    if not isinstance(document, dict) or document.keys() != {"version", "workers"} or document["version"] != _VERSION:
        raise ValueError
    stored = document["workers"]
    if not isinstance(stored, dict) or not all(isinstance(text, str) for text in stored.values()):
        raise ValueError
    workers = {name: datetime.fromisoformat(text) for name, text in stored.items()}
    if any(seen.tzinfo is None for seen in workers.values()):
        raise ValueError
    return workers


def _encode(workers: Mapping[str, datetime]) -> bytes:
    times = {name: seen.astimezone(UTC).isoformat() for name, seen in sorted(workers.items())}
    return json.dumps({"version": _VERSION, "workers": times}, indent=1, ensure_ascii=False).encode() + b"\n"


def _has_news(stored: Mapping[str, datetime], names: Collection[str], now: datetime) -> bool:
    """Whether a name is new and there is room for it, or a time needs to be renewed."""
    if len(stored) < MAX_WORKERS and any(name not in stored for name in names):
        return True
    return any(now - stored[name] >= RENEW_AFTER for name in names if name in stored)


def _is_storable(name: str) -> bool:
    return 1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable()


def _signature(status: os.stat_result) -> _Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
