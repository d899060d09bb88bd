"""Fetch a shared file to a place on this machine: whole and checked, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

from ..environment.private_files import make_private_folder, open_private, sync_folder
from ..errors import EnvironmentFolderError, NoWorkersError, SharedFileError, SharedFileMissingError
from ..protocol.jobs import Results, failure_reason
from ..protocol.pending_job import OnStream
from .address import SERVICE, path_parts
from .download import CHUNK_BYTES, REQUESTED_AHEAD, Checksum, Download, FileDetails

DETAILS_SECONDS: Final = 10.0
"""How long a worker may take to say that it has a file."""

CHUNK_SECONDS: Final = 20
"""How long a worker waits for the request of the next part before it fails."""

_READ_BYTES = 1024 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK})


class FileClient(Protocol):
    """Runs jobs of the file service."""

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = ...,
        workers: Any = ...,
        timeout: float = ...,
        on_stream: OnStream | None = ...,
    ) -> Results:
        """Run a task; return one entry for each targeted worker; NfcliError if there is none."""


def fetch(
    client: FileClient,
    url: str,
    destination: Path,
    *,
    timeout: float,
    overwrite: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    requested_ahead: int = REQUESTED_AHEAD,
) -> None:
    """Fetch a file from a worker that has it, the next one if that fails; a file with its content is left as it is.

    What is written is readable for this user alone. It is at `destination` once it is whole, and nothing is left of it
    otherwise.

    Args:
        client: runs the jobs.
        url: its address, `nf://…`.
        destination: the file to make.
        timeout: seconds for everything.
        overwrite: whether a file that is there with another content may be replaced.
        chunk_bytes: size of the parts in which it comes.
        requested_ahead: how many parts are requested at a time.

    Raises:
        UsageError: it isn't the address of a file.
        SharedFileMissingError: no worker has it.
        SharedFileError: it can't be fetched.
        EnvironmentFolderError: it can't be written, or a file is there that isn't to be replaced.
        NoWorkersError: there is no file service.
    """
    path_parts(url)
    deadline = time.monotonic() + timeout
    holders = find_holders(client, url, min(timeout, DETAILS_SECONDS))
    for number, (worker, details) in enumerate(holders.items(), 1):
        if _is_there(destination, details, overwrite=overwrite):
            return
        try:
            with _new_file(destination, overwrite=overwrite) as stream:
                download = Download(stream, details, chunk_bytes=chunk_bytes, requested_ahead=requested_ahead)
                seconds = max(deadline - time.monotonic(), 0.001)
                _receive(client, url, worker, download, seconds=seconds)
        except (SharedFileError, NoWorkersError) as error:
            if number == len(holders) or time.monotonic() >= deadline:
                raise type(error)(f"{url} from {worker}: {error}") from None
        else:
            return


def make_place(folder: Path, parts: Sequence[str]) -> Path:
    """Return where a file is kept whose address has these parts; its folder, private in `folder`, is made.

    Raises:
        EnvironmentFolderError: it can't be made.
    """
    for name in ("", *parts[:-1]):
        folder /= name
        make_private_folder(folder, parents=True)
    return folder / parts[-1]


def find_holders(client: FileClient, url: str, timeout: float = DETAILS_SECONDS) -> dict[str, FileDetails]:
    """Return the workers that share a file, and what each says of it.

    Raises:
        SharedFileMissingError: there is none.
        SharedFileError: what a worker says isn't valid.
        NoWorkersError: there is no file service.
    """
    results = client.run_job(SERVICE, "file_details", kwargs={"url": url}, timeout=timeout)
    holders = {worker: result["result"] for worker, result in sorted(results.items()) if not result["failed"]}
    if not holders:
        reasons = dict.fromkeys(failure_reason(result) for result in results.values())
        raise SharedFileMissingError("; ".join(reasons))
    return {worker: FileDetails.parse(details) for worker, details in holders.items()}


def _receive(client: FileClient, url: str, worker: str, download: Download, *, seconds: float) -> None:
    kwargs = {"url": url, "offset": 0, "chunk_size": download.chunk_bytes, "chunk_timeout": CHUNK_SECONDS}
    results = client.run_job(
        SERVICE, "fetch_file", kwargs=kwargs, workers=[worker], timeout=seconds, on_stream=download.receive
    )
    if download.write_error is not None:
        raise EnvironmentFolderError(f"the file can't be written: {download.write_error}")
    for result in results.values():
        if result["failed"]:
            raise SharedFileError(failure_reason(result))
    download.verify()


def _is_there(path: Path, details: FileDetails, *, overwrite: bool) -> bool:
    """Whether the file is at its place; EnvironmentFolderError if something else is that isn't to be replaced."""
    if path.is_dir():
        raise EnvironmentFolderError(f"{path} is a folder: name a file in it")
    if _has_content(path, details):
        return True
    if os.path.lexists(path) and not overwrite:
        raise _already_there(path)
    return False


def _has_content(path: Path, details: FileDetails) -> bool:
    """Whether a regular file is there with this size and checksum."""
    checksum = Checksum()
    try:
        if not path.is_file() or path.stat().st_size != details.size:
            return False
        with path.open("rb") as stream:
            while data := stream.read(_READ_BYTES):
                checksum.add(data)
    except OSError:
        return False
    return checksum.matches(details)


@contextlib.contextmanager
def _new_file(path: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Open a private file that is at `path` when the block has ended, and nowhere if it raises."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with open_private(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        (_replace if overwrite else _publish)(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise _already_there(path) from None
    except OSError as error:
        raise EnvironmentFolderError(f"{path} can't be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _replace(temporary: Path, path: Path) -> None:
    temporary.replace(path)


def _publish(temporary: Path, path: Path) -> None:
    """Give a file its name unless one has it: by a link where the file system has them, which can't replace one."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError from None
        temporary.rename(path)


def _already_there(path: Path) -> EnvironmentFolderError:
    return EnvironmentFolderError(f"{path} exists with another content: name another file, or say overwrite")
