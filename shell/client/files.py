"""`Client.fetch_file`: shared files to this machine, with the results that scripts of NorFab's client expect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, overload

from ...models.environment.paths import Environment
from ...models.errors import EnvironmentFolderError, SharedFileError, SharedFileMissingError, UsageError
from ...models.protocol.jobs import check_timeout
from ...models.shared_files.address import path_parts
from ...models.shared_files.download import CHUNK_BYTES, REQUESTED_AHEAD
from ...models.shared_files.fetching import FileClient, fetch, make_place

FETCHED, FAILED, MISSING, INVALID = "200", "400", "404", "500"
MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
"""Longest file whose text is returned."""

MAX_PART_BYTES: Final = 16 * 1024 * 1024
MAX_REQUESTED_AHEAD: Final = 100


class FileSharing(FileClient, Protocol):
    """The client, as far as it fetches files."""

    environment: Environment

    @overload
    def fetch_file(self, url: str, *args: Any, **options: Any) -> dict[str, Any]: ...

    @overload
    def fetch_file(self, url: Sequence[str], *args: Any, **options: Any) -> list[dict[str, Any]]: ...

    def fetch_file(
        self,
        url: str | Sequence[str],
        chunk_size: int = CHUNK_BYTES,
        pipeline: int = REQUESTED_AHEAD,
        timeout: float = 600,
        read: bool = False,
        *,
        destination: str | Path | None = None,
        overwrite: bool = False,
    ) -> Any:
        """Fetch a file that a NorFab fabric shares, from a worker of its service `filesharing`.

        Size and checksum are compared with those that the worker reports. What is written is private to this user, and
        in its place only when it is whole: nothing is left of a file that can't be fetched.

        Args:
            url: the file's address, `nf://…`, or several.
            chunk_size: bytes of a part, 16 MiB at most.
            pipeline: how many parts are requested at a time, 100 at most.
            timeout: seconds for each file.
            read: return the text of the file, which must be UTF-8, instead of its path.
            destination: where to put it: a file, or a folder that exists; None: a folder of the environment's state,
                where a file that has changed is replaced. One that is the same already isn't fetched again.
            overwrite: whether another file at `destination` may be replaced.

        Returns:
            For one address `{"status": "200", "content": PATH_OR_TEXT, "error": None}`, or with `content` None the
            reason in `error` and status 404 (no such file), 400 (it didn't arrive whole) or 500 (no valid address); for
            several a list of these.

        Raises:
            NoWorkersError: there is no file service, as in an environment without a broker.
            EnvironmentFolderError: the file can't be written, or another one is at its place.
            UsageError: an argument is not valid.
        """
        check_timeout(timeout)
        _check_count("chunk_size", chunk_size, MAX_PART_BYTES)
        _check_count("pipeline", pipeline, MAX_REQUESTED_AHEAD)
        urls, place = [url] if isinstance(url, str) else url, None if destination is None else Path(destination)
        options = {"timeout": timeout, "chunk_bytes": chunk_size, "requested_ahead": pipeline}
        fetched = _fetch_files(self, self.environment, urls, place, read=read, overwrite=overwrite, **options)
        return fetched[0] if isinstance(url, str) else fetched


def _check_count(name: str, value: object, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise UsageError(f"{name} must be a whole number from 1 to {limit}, got {value!r}")


def _fetch_files(
    client: FileClient,
    environment: Environment,
    urls: Sequence[str],
    destination: Path | None,
    *,
    read: bool,
    overwrite: bool,
    **options: Any,
) -> list[dict[str, Any]]:
    """Fetch files one after the other; return the result of each, in their order, as `fetch_file` does."""
    if not all(isinstance(url, str) for url in urls):
        raise UsageError(f"url must be a text or a list of texts, got {urls!r}")
    if destination is not None and len(urls) > 1 and not destination.is_dir():
        raise EnvironmentFolderError(f"{destination} is not a folder: name an existing one for several files")
    results = []
    for url in urls:
        try:
            parts = path_parts(url)
            path = (
                make_place(environment.downloads_folder, parts)
                if destination is None
                else _path_at(destination, parts[-1])
            )
            fetch(client, url, path, overwrite=overwrite or destination is None, **options)
            result = _result(FETCHED, _text(url, path) if read else str(path))
        except UsageError as error:
            result = _result(INVALID, error=error)
        except SharedFileMissingError as error:
            result = _result(MISSING, error=error)
        except SharedFileError as error:
            result = _result(FAILED, error=error)
        results.append(result)
    return results


def _result(status: str, content: str | None = None, *, error: Exception | None = None) -> dict[str, Any]:
    return {"status": status, "content": content, "error": None if error is None else str(error)}


def _path_at(destination: Path, name: str) -> Path:
    path = destination / name if destination.is_dir() else destination
    if not path.parent.is_dir():
        raise EnvironmentFolderError(f"{path.parent} is not a folder: create it, or name a file in another one")
    return path


def _text(url: str, path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise SharedFileError(f"{url} is longer than the {MAX_TEXT_BYTES} bytes that can be read: it is in {path}")
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise SharedFileError(f"{url} isn't text in UTF-8: it is in {path}") from None
    except OSError as error:
        raise EnvironmentFolderError(f"{path} can't be read: {error.strerror}") from error
