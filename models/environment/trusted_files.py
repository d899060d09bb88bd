"""Files and folders that decide what runs or where tokens go: only root and this user may be able to change them.

The rule is that of ssh for its configuration. Every step from the root folder to the file is checked on an open
descriptor, each symbolic link too:

- it belongs to root or to the user who runs nfcli;
- nobody else can write to it: not the others, and no group but the user's private one and root's;
- a folder with the sticky bit, as `/tmp`, may be writable by all: only their owners can replace what is in it.

Nobody can write to a file system that is mounted read-only, whatever the modes there: ConfigMaps of Kubernetes are
folders with mode 0777. Folders named in `NFCLI_TRUSTED_FOLDERS` may have any mode.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from ..errors import EnvironmentFolderError

TRUSTED_FOLDERS_VARIABLE = "NFCLI_TRUSTED_FOLDERS"
STATE_GROUP_VARIABLE = "NFCLI_STATE_GROUP"
MAX_LINKS = 40

# Folders need not be readable on the way to a file; not every system can open them without reading.
_FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ACL = "system.posix_acl_access"


def open_trusted(path: Path) -> IO[bytes]:
    """Open a regular file for reading that only root and this user can change, and nobody can replace.

    Raises:
        EnvironmentFolderError: other users could change it, or a folder or link on the way to it; or it isn't a regular
            file. The message names the `chown` or `chmod` that fixes it.
        OSError: as `open` does.
    """
    with _walk(path) as walk:
        if walk.file is None:
            number = errno.EISDIR if walk.is_complete else errno.ENOENT
            raise OSError(number, os.strerror(number), str(path))
        return os.fdopen(os.dup(walk.file), "rb")


def verify_trusted(path: Path, *, group: int | None = None) -> None:
    """Verify a file or folder, and all folders and links on the way, as far as they exist.

    The members of `group` may be able to write to a folder at the end of the way.

    Raises:
        EnvironmentFolderError: other users could change one of them; the message names the `chown` or `chmod`.
        OSError: a folder on the way can't be entered, or links form a loop.
    """
    with _walk(path, group):
        pass


@contextmanager
def _walk(path: Path, group: int | None = None) -> Iterator[_Walk]:
    walk = _Walk(path, group)
    try:
        walk.run()
        yield walk
    finally:
        walk.close()


class _Walk:
    """The way to a path, as descriptors of the folders that it leads through.

    `file` is the descriptor of the regular file at its end, None where a folder is there, or nothing; `is_complete`
    tells these apart.
    """

    def __init__(self, path: Path, group: int | None) -> None:
        self._group = group
        self.file: int | None = None
        self.is_complete = False
        self._steps = _reversed_steps(path.absolute())
        self._links = 0
        self._folders: list[tuple[Path, int]] = []

    def close(self) -> None:
        for _, descriptor in self._folders:
            os.close(descriptor)
        if self.file is not None:
            os.close(self.file)

    def run(self) -> None:
        self._enter(Path(os.sep), os.open(os.sep, _FOLDER_FLAGS))
        while self._steps:
            step = self._steps.pop()
            try:
                self._take(step)
            except FileNotFoundError:
                return
            if self.file is not None:  # what follows is inside of an archive
                break
        self.is_complete = True

    def _take(self, step: str) -> None:
        if step == os.pardir:
            if len(self._folders) > 1:
                os.close(self._folders.pop()[1])
            return
        parent, folder = self._folders[-1]
        place = parent / step
        status = os.stat(step, dir_fd=folder, follow_symlinks=False)
        # A verified folder's entries can't be replaced by others between this call and the next, and those that are
        # opened are verified again.
        if stat.S_ISLNK(status.st_mode):
            _verify_owner(place, status)
            self._follow(os.readlink(step, dir_fd=folder), place)
        elif stat.S_ISDIR(status.st_mode):
            self._enter(place, os.open(step, _FOLDER_FLAGS, dir_fd=folder))
        else:
            _verify_owner(place, status)
            self.file = os.open(step, _FILE_FLAGS, dir_fd=folder)
            _verify(place, self.file)
            if not stat.S_ISREG(os.fstat(self.file).st_mode):
                raise EnvironmentFolderError(f"{place} must be a regular file: move away what is there")

    def _enter(self, place: Path, descriptor: int) -> None:
        self._folders.append((place, descriptor))
        if self._steps or not is_open_to_group(place, os.fstat(descriptor), self._group):
            _verify(place, descriptor)

    def _follow(self, target: str, place: Path) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
        if Path(target).is_absolute():
            while len(self._folders) > 1:
                os.close(self._folders.pop()[1])
        self._steps += _reversed_steps(Path(target))


def _reversed_steps(path: Path) -> list[str]:
    return [step for step in reversed(path.parts) if step.strip(os.sep)]


def _verify(place: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    _verify_owner(place, status)
    mode = stat.S_IMODE(status.st_mode)
    if not mode & (stat.S_IWGRP | stat.S_IWOTH) or (stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX):
        return
    wide = "g" if mode & stat.S_IWGRP and not _is_private(place, status) else ""
    wide += "o" if mode & stat.S_IWOTH else ""
    if not wide or _has_no_writers(place, descriptor):
        return
    remedy = f"run chmod {wide}-w {shlex.quote(str(place))}"
    if status.st_uid != os.geteuid():
        remedy += " as root"
        if stat.S_ISDIR(status.st_mode):
            remedy += f", or set {TRUSTED_FOLDERS_VARIABLE} to it in a container that nobody else uses"
    remedy += kubernetes_remedy(status)
    raise EnvironmentFolderError(
        f"{place} has mode {mode:04o} and can be changed by other users, who would control nfcli: {remedy}"
    )


def _verify_owner(place: Path, status: os.stat_result) -> None:
    user = os.geteuid()
    if status.st_uid in {0, user}:
        return
    raise EnvironmentFolderError(
        f"{place} belongs to user {user_name(status.st_uid)}, who would control nfcli: "
        f"{ownership_remedy(place, status)}"
    )


def ownership_remedy(path: Path, status: os.stat_result) -> str:
    """Return what to do about a path that belongs to another user: nothing in it gets lost."""
    flag = "-h " if stat.S_ISLNK(status.st_mode) else ""
    return f"run nfcli as that user, or run chown {flag}{user_name(os.geteuid())} {shlex.quote(str(path))}"


def _has_no_writers(place: Path, descriptor: int) -> bool:
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return True
    return str(place) in os.environ.get(TRUSTED_FOLDERS_VARIABLE, "").split(os.pathsep)


def _is_private(place: Path, status: os.stat_result) -> bool:
    """Whether the group bits of a mode give access to nobody but this user and root."""
    return is_private_group(status.st_gid, os.geteuid()) and not _has_acl(place)


def state_group() -> int | None:
    """Return the group that the state may be open to: `NFCLI_STATE_GROUP`, a name or a number.

    It is meant for volumes of Kubernetes, whose `fsGroup` makes all files accessible to a group that only the
    processes of the pod are in.

    Raises:
        EnvironmentFolderError: there is no such group.
    """
    value = os.environ.get(STATE_GROUP_VARIABLE, "")
    if not value:
        return None
    if value.isascii() and value.isdecimal():
        return int(value)
    import grp  # noqa: PLC0415  few need it

    try:
        return grp.getgrnam(value).gr_gid
    except (KeyError, ValueError) as error:
        raise EnvironmentFolderError(
            f"{STATE_GROUP_VARIABLE} is {value!r}: must be the name or the number of a group"
        ) from error


def kubernetes_remedy(status: os.stat_result) -> str:
    """Return what else to do, behind another remedy, about a mode of the state that kubelet may have widened."""
    mode = status.st_mode
    is_widened = (stat.S_ISDIR(mode) and mode & stat.S_ISGID) or "KUBERNETES_SERVICE_HOST" in os.environ
    if mode & stat.S_IRWXO or not is_widened:
        return ""
    return (
        "; if Kubernetes has widened it (fsGroup), set fsGroupChangePolicy: OnRootMismatch, "
        f"or {STATE_GROUP_VARIABLE}={status.st_gid} if it is the state"
    )


def is_open_to_group(place: Path, status: os.stat_result, group: int | None) -> bool:
    """Whether a file or folder of root's or this user's is open to nobody else but `group`, as `fsGroup` makes it.

    A folder must pass its group on to what is made in it (setgid).
    """
    mode = status.st_mode
    return (
        group is not None
        and status.st_gid == group
        and status.st_uid in {0, os.geteuid()}
        and not mode & stat.S_IRWXO
        and (not stat.S_ISDIR(mode) or bool(mode & stat.S_ISGID))
        and not _has_acl(place)
    )


def _has_acl(place: Path) -> bool:
    """Whether an access control list grants further users what the group bits, then its mask, show."""
    try:
        return bool(os.getxattr(place, _ACL, follow_symlinks=False))
    except (OSError, AttributeError):  # none, or a system without them
        return False


@lru_cache
def is_private_group(group_id: int, user_id: int) -> bool:
    """Whether a group has no member but this user and root: it is root's, or has the user's name and no other member.

    The name counts too: a directory service need not list the members of a group, the accounts least of all.
    """
    import grp  # noqa: PLC0415  only modes that give a group access need it
    import pwd  # noqa: PLC0415  as above

    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:  # in a container
        user = ""
    try:
        group = grp.getgrgid(group_id)
    except KeyError:
        return False
    if not {*group.gr_mem} <= {user, "root"}:
        return False
    if group_id == 0:  # the primary group of some accounts of the system's as well, with which nobody logs in
        return True
    return group.gr_name == user and all(each.pw_name == user for each in pwd.getpwall() if each.pw_gid == group_id)


def user_name(user_id: int) -> str:
    """Return a user's name, the number where the account has none."""
    import pwd  # noqa: PLC0415  only messages need it

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
