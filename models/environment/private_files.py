"""Private files and folders: modes 0600 and 0700 whatever the umask, verified before use; links are not followed.

A wrong mode is reported, never silently corrected: other users may have read or changed the file already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import EnvironmentFolderError
from .trusted_files import is_open_to_group, kubernetes_remedy, ownership_remedy, state_group, user_name

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS = 0o077
_LOST_AND_FOUND = "lost+found"


class UncreatableFolderError(EnvironmentFolderError):
    """A folder can't be created."""


def make_private_folder(path: Path, *, parents: bool = False, verify: bool = True) -> None:
    """Create a folder with mode 0700 whatever the umask; one that exists is verified unless `verify` is false.

    Raises:
        EnvironmentFolderError: it can't be created (`UncreatableFolderError`), isn't a folder of this user, or is open
            to other users.
    """
    try:
        if parents and not path.parent.exists():
            make_private_folder(path.parent, parents=True, verify=False)
        try:
            path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            if verify:
                _verify(path, path.lstat(), stat.S_IFDIR)
            elif not path.is_dir():
                raise EnvironmentFolderError(_wrong_kind(path, stat.S_IFDIR)) from None
        else:
            path.chmod(_FOLDER_MODE)  # the umask may have taken even the owner's own bits
    except OSError as error:
        raise UncreatableFolderError(f"folder {path} can't be created: {error.strerror}") from error


def open_private(path: Path, mode: str = "r") -> IO[Any]:
    """Open a regular file of this user, mode 0600 whatever the umask; `mode` as in `open`, text is UTF-8.

    A symbolic link is never followed, and an existing file is verified before a byte of it is changed.

    Raises:
        EnvironmentFolderError: the path is a link, not a regular file, another user's, or open to other users.
        OSError: as `open` does.
    """
    return open(
        path, mode, encoding=None if "b" in mode else "utf-8", opener=lambda _, flags: _open_descriptor(path, flags)
    )


def write_private(path: Path, data: bytes) -> None:
    """Replace a file's content atomically, mode 0600: readers see the old content or the new one, also after a crash.

    Raises:
        OSError: as `open` does; the old content is kept.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with open_private(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_descriptor(path: Path, flags: int) -> int:
    """Open `path` with the flags that `open` derives from its mode; an existing file is truncated once verified."""
    existing = flags & ~(os.O_CREAT | os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not block
    if not flags & os.O_CREAT:
        return _open_existing(path, existing, truncate=False)
    while True:
        try:
            descriptor = os.open(path, existing | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
        else:
            os.fchmod(descriptor, _FILE_MODE)  # the umask may have taken even the owner's own bits
            return descriptor
        with contextlib.suppress(FileNotFoundError):  # removed between the two calls: try to create it again
            return _open_existing(path, existing, truncate=bool(flags & os.O_TRUNC))


def _open_existing(path: Path, flags: int, *, truncate: bool) -> int:
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise EnvironmentFolderError(_link_problem(path)) from error
        raise
    try:
        _verify(path, os.fstat(descriptor), stat.S_IFREG)
        if truncate:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _verify(path: Path, status: os.stat_result, kind: int) -> None:
    """Raise unless `path` is a private file or folder of this user, whichever `kind` is, and not a link."""
    problem = _owner_problem(path, status)
    if not problem and stat.S_IFMT(status.st_mode) != kind:
        problem = _wrong_kind(path, kind)
    problem = problem or _mode_problem(path, status)
    if problem:
        raise EnvironmentFolderError(problem)


def _wrong_kind(path: Path, kind: int) -> str:
    return f"{path} must be {'a folder' if kind == stat.S_IFDIR else 'a regular file'}: move away what is there"


def _link_problem(path: Path) -> str:
    return f"{path} is a symbolic link: replace it with what it points to"


def _owner_problem(path: Path, status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return _link_problem(path)
    if status.st_uid != os.geteuid():
        owner, user = user_name(status.st_uid), user_name(os.geteuid())
        remedy = ownership_remedy(path, status)
        return f"{path} belongs to user {owner}, not to user {user} who runs nfcli: {remedy}"
    return None


def _mode_problem(path: Path, status: os.stat_result) -> str | None:
    """Return the message for a file or folder whose mode is too wide, None where it isn't.

    The modes of sockets follow the umask and aren't checked: their folder keeps other users out.
    """
    mode = stat.S_IMODE(status.st_mode)
    wanted = {stat.S_IFDIR: _FOLDER_MODE, stat.S_IFREG: _FILE_MODE}.get(stat.S_IFMT(status.st_mode))
    if wanted is None or not mode & _OTHERS or is_open_to_group(path, status, state_group()):
        return None
    remedy = f"run chmod {wanted:o} {shlex.quote(str(path))}{kubernetes_remedy(status)}"
    return f"{path} has mode {mode:04o} and is open to other users: {remedy}"


def verify_tree(*tops: Path) -> None:
    """Verify owner and mode of everything from `tops` down; files that disappear meanwhile are ignored.

    Raises:
        EnvironmentFolderError: something is a link, another user's, open to other users, or can't be read; the message
            names the `chmod` that fixes it, and how many more problems there are.
    """
    wide = []
    for problem, is_mode in tree_problems(*tops):
        if not is_mode:
            raise EnvironmentFolderError(problem)
        wide.append(problem)
    if wide:
        folders = " ".join(shlex.quote(str(top)) for top in tops)
        more = f" (and {len(wide) - 1} more: run chmod -R go-rwx {folders} to fix all)"
        raise EnvironmentFolderError(wide[0] + (more if len(wide) > 1 else ""))


def tree_problems(*tops: Path) -> Iterator[tuple[str, bool]]:
    """Yield each problem that `verify_tree` would raise, and whether it is a mode that is too wide; changes nothing.

    Doesn't follow links or enter other users' folders, but enters folders whose mode is too wide. The folder
    `lost+found` of a file system is skipped.
    """
    pending = [*reversed(tops)]
    while pending:
        path = pending.pop()
        try:
            status = path.lstat()
            if path.name == _LOST_AND_FOUND and path.parent in tops and status.st_uid == 0:
                continue
            owner_problem = _owner_problem(path, status)
            problem = owner_problem or _mode_problem(path, status)
            if problem:
                yield problem, not owner_problem
            if not owner_problem and stat.S_ISDIR(status.st_mode):
                pending.extend(sorted(path.iterdir(), reverse=True))
        except FileNotFoundError:
            continue
        except PermissionError:
            yield f"{path} can't be read: run chmod 700 {shlex.quote(str(path))}", False
