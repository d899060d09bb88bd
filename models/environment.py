"""Where things lie on disk, and the modes that keep them private.

An environment is the folder that holds `inventory.yaml`; what nfcli itself writes lies in `.nfcli/` inside it, folders
0700 and files 0600 whatever the umask. What exists is verified, never silently mended: a mode that let others in says
that they may have been in.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from .errors import EnvironmentFolderError, InventoryError
from .starter import STARTER_INVENTORY, STARTER_WORKER

DEFAULT_WORKER = "fastmcp-worker-1"
INVENTORY_NAME = "inventory.yaml"
WORKER_NAME_MAX_CHARACTERS = 64
# sun_path holds 108 bytes on Linux and 104 on the BSDs, the closing NUL included.
SOCKET_PATH_MAX_BYTES = 103 if sys.platform == "darwin" else 107

_WORKER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# `all` and `any` address several workers; keys/client.key belongs to the local client.
_RESERVED_NAMES = frozenset({"all", "any", "client"})
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS = 0o077


@dataclass(frozen=True)
class Environment:
    """An environment folder and its inventory file, None when the built-in default inventory applies.

    The methods that take a worker's name raise `EnvironmentFolderError` for one that breaks the rule of worker names,
    so no name can lead out of the folder.
    """

    folder: Path
    inventory_file: Path | None

    @property
    def state_folder(self) -> Path:
        """Everything that nfcli writes."""
        return self.folder / ".nfcli"

    @property
    def keys_folder(self) -> Path:
        """CURVE key pairs of the workers and of the local client."""
        return self.state_folder / "keys"

    @property
    def clients_folder(self) -> Path:
        """Public keys of the clients that the workers let in."""
        return self.state_folder / "clients"

    @property
    def run_folder(self) -> Path:
        """Sockets and lock files."""
        return self.state_folder / "run"

    @property
    def logs_folder(self) -> Path:
        """Logs and audit trails."""
        return self.state_folder / "logs"

    @property
    def history_file(self) -> Path:
        """The shell's history."""
        return self.state_folder / "history"

    def tokens_folder(self, name: str) -> Path:
        """Return the token database's folder of a worker."""
        return self.state_folder / "tokens" / _checked(name)

    def lock_file(self, name: str) -> Path:
        """Return the file whose flock says who owns the worker's name (`models/lock.py`)."""
        return self.run_folder / f"{_checked(name)}.lock"

    def log_file(self, name: str) -> Path:
        """Return a worker's structured log."""
        return self.logs_folder / f"{_checked(name)}.jsonl"

    def audit_file(self, name: str) -> Path:
        """Return a worker's audit trail."""
        return self.logs_folder / f"audit-{_checked(name)}.jsonl"

    def socket_endpoint(self, name: str) -> str:
        """Return `ipc://` and the path of a worker's socket.

        Where that path would be longer than a socket's may be, the socket goes to a short folder outside, which is
        created, or verified to be a 0700 folder of this user. That folder depends on `XDG_RUNTIME_DIR`, so the lock
        file's content, not this method, says where a running worker listens.

        Raises:
            EnvironmentFolderError: the short folder can't be made or isn't private.
        """
        path = str(self.run_folder.absolute() / f"{_checked(name)}.ipc")
        if _fits_a_socket(path):
            return f"ipc://{path}"
        label = hashlib.sha256(os.fsencode(self.folder.resolve()) + b"\0" + name.encode()).hexdigest()[:24]
        return f"ipc://{_short_folder() / label}"

    def prepare(self) -> None:
        """Create what is missing of the `.nfcli/` tree and verify owner and mode of all that exists.

        Safe to repeat and to run beside other processes that do the same.

        Raises:
            EnvironmentFolderError: something can't be created or read, is a symbolic link, belongs to another user,
                or lets other users in; the message has the `chmod` that mends it.
        """
        make_private_folder(self.folder, parents=True, verify=False)
        make_private_folder(self.state_folder)
        for folder in (self.keys_folder, self.clients_folder, self.run_folder, self.logs_folder):
            make_private_folder(folder)
        make_private_folder(self.state_folder / "tokens")
        _verify_tree(self.state_folder)


def find_environment(inventory: str | Path | None = None) -> Environment:
    """Return the environment of an inventory file (or of the folder that holds one), else the one that applies here.

    Without `inventory` that is the working folder if it holds `inventory.yaml`, else the user's default environment.

    Raises:
        InventoryError: `inventory` doesn't exist.
    """
    if inventory is not None:
        path = Path(inventory).expanduser().resolve()
        file = path / INVENTORY_NAME if path.is_dir() else path
        if not file.is_file():
            raise InventoryError(
                f"{file}: no such inventory file: name an existing one with -i, or make one with --create-env DIR"
            )
        return Environment(folder=file.parent, inventory_file=file)
    here = Path.cwd() / INVENTORY_NAME
    if here.is_file():
        return Environment(folder=here.parent, inventory_file=here)
    folder = platformdirs.user_state_path("nfcli", appauthor=False)
    file = folder / INVENTORY_NAME
    return Environment(folder=folder, inventory_file=file if file.is_file() else None)


def create_environment(folder: Path) -> Environment:
    """Write a commented inventory with one worker, authentication on, into `folder`, which is created if missing.

    Raises:
        EnvironmentFolderError: one of the files exists already (nothing is changed then), or can't be written.
    """
    folder = folder.expanduser().resolve()
    inventory_file = folder / INVENTORY_NAME
    worker_file = folder / "fastmcp" / f"{DEFAULT_WORKER}.yaml"
    for file in (inventory_file, worker_file):
        if os.path.lexists(file):
            raise EnvironmentFolderError(f"{file} exists already: nothing was changed, name another folder")
    make_private_folder(folder, parents=True, verify=False)
    make_private_folder(worker_file.parent, verify=False)
    for file, text in ((worker_file, STARTER_WORKER), (inventory_file, STARTER_INVENTORY)):
        try:
            with open_private(file, "x") as stream:
                stream.write(text)
        except OSError as error:
            raise EnvironmentFolderError(f"{file} can't be written: {error.strerror}") from error
    return Environment(folder=folder, inventory_file=inventory_file)


def worker_name_problem(name: str) -> str | None:
    """Return what is wrong with a worker's name, as the end of a sentence, or None."""
    if not 1 <= len(name) <= WORKER_NAME_MAX_CHARACTERS:
        return f"must be 1 to {WORKER_NAME_MAX_CHARACTERS} characters, got {len(name)}"
    if not _WORKER_NAME.fullmatch(name):
        return "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"
    if name.casefold() in _RESERVED_NAMES:
        return "is reserved: choose another name"
    if name.startswith("audit-"):  # logs/audit-X.jsonl is the audit trail of worker X
        return "must not begin with audit-"
    return None


def make_private_folder(path: Path, *, parents: bool = False, verify: bool = True) -> None:
    """Create a folder with mode 0700 whatever the umask; one that exists is verified unless `verify` is false.

    Raises:
        EnvironmentFolderError: it can't be created, is no folder of this user, or lets others in.
    """
    try:
        if parents and not path.parent.exists():
            make_private_folder(path.parent, parents=True, verify=False)
        try:
            path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            if verify:
                _verify(path, path.lstat(), is_folder=True)
            elif not path.is_dir():
                raise EnvironmentFolderError(f"{path} is in the way: a folder is needed there") from None
        else:
            path.chmod(_FOLDER_MODE)  # the umask may have taken even the owner's own bits
    except OSError as error:
        raise EnvironmentFolderError(f"{path} can't be made a folder: {error.strerror}") from error


def open_private(path: Path, mode: str = "r") -> IO[Any]:
    """Open a regular file of this user, mode 0600 whatever the umask; text is UTF-8.

    A symbolic link is never followed, and an existing file is verified before a byte of it is changed.

    Args:
        path: where.
        mode: as in `open`: one of r, w, a, x, with b and + as wanted.

    Raises:
        EnvironmentFolderError: what is there is a link, not a file, another user's, or open to other users.
        OSError: as `open` does.
    """
    action = mode.strip("bt+")
    descriptor = _open_descriptor(path, action, update="+" in mode)
    try:
        return open(descriptor, mode, encoding=None if "b" in mode else "utf-8")  # noqa: PTH123  a descriptor, no path
    except BaseException:
        os.close(descriptor)
        raise


def write_private(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, mode 0600: readers see the old content or the new, also after a crash.

    Raises:
        OSError: as `open` does; the old content is then still there.
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


def _open_descriptor(path: Path, action: str, *, update: bool) -> int:
    # O_NONBLOCK: a FIFO somebody put there must not hang us; it means nothing for regular files.
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    flags |= os.O_RDWR if update else (os.O_RDONLY if action == "r" else os.O_WRONLY)
    flags |= os.O_APPEND if action == "a" else 0
    while True:
        if action != "r":
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            except FileExistsError:
                if action == "x":
                    raise
            else:
                os.fchmod(descriptor, _FILE_MODE)  # the umask may have taken even the owner's own bits
                return descriptor
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            if action == "r":
                raise
            continue  # removed between the two calls
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise EnvironmentFolderError(f"{path} is a symbolic link: put a real file there") from error
            raise
        try:
            _verify(path, os.fstat(descriptor))
            if action == "w":
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _checked(name: str) -> str:
    problem = worker_name_problem(name)
    if problem:
        raise EnvironmentFolderError(f"worker name {name[:80]!r} {problem}")
    return name


def _verify(path: Path, status: os.stat_result, *, is_folder: bool = False) -> None:
    """Raise unless `path` is a file (or folder) of this user, private, and no link."""
    _verify_owner(path, status)
    if is_folder and not stat.S_ISDIR(status.st_mode):
        raise EnvironmentFolderError(f"{path} is in the way: a folder is needed there")
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise EnvironmentFolderError(f"{path} is in the way: a file is needed there")
    remedy = _remedy(path, status)
    if remedy:
        raise EnvironmentFolderError(remedy)


def _verify_owner(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise EnvironmentFolderError(f"{path} is a symbolic link: put what it points to in its place")
    if status.st_uid != os.geteuid():
        raise EnvironmentFolderError(
            f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()}, who runs this: "
            f"run as that user or remove it"
        )


def _remedy(path: Path, status: os.stat_result) -> str | None:
    """Return what to say of a file or folder whose mode is too wide, else None.

    A socket's mode is the umask's doing and is not looked at: its folder keeps others out.
    """
    mode = stat.S_IMODE(status.st_mode)
    wanted = {stat.S_IFDIR: _FOLDER_MODE, stat.S_IFREG: _FILE_MODE}.get(stat.S_IFMT(status.st_mode))
    if wanted is None or not mode & _OTHERS:
        return None
    return f"{path} has mode {mode:04o} and is open to other users: run chmod {wanted:o} {shlex.quote(str(path))}"


def _verify_tree(top: Path) -> None:
    remedies = []
    for path, status in _walk(top):
        _verify_owner(path, status)
        remedy = _remedy(path, status)
        if remedy:
            remedies.append(remedy)
    if len(remedies) == 1:
        raise EnvironmentFolderError(remedies[0])
    if remedies:
        everything = f"chmod -R go-rwx {shlex.quote(str(top))}"
        raise EnvironmentFolderError(f"{remedies[0]} (and {len(remedies) - 1} more: {everything} mends all)")


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield everything from `top` down, skipping what disappears meanwhile."""
    pending = [top]
    while pending:
        path = pending.pop()
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                pending.extend(sorted(path.iterdir(), reverse=True))
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise EnvironmentFolderError(f"{path} can't be read: run chmod 700 {shlex.quote(str(path))}") from error
        yield path, status


def _fits_a_socket(path: str) -> bool:
    try:
        return len(path.encode()) <= SOCKET_PATH_MAX_BYTES
    except UnicodeEncodeError:  # bytes that aren't UTF-8; pyzmq couldn't pass such a path on
        return False


def _short_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / "nfcli"
    # 25: a slash and the label of 24 characters.
    if not (Path(runtime).is_absolute() and Path(runtime).is_dir() and _fits_a_socket(f"{folder}{'x' * 25}")):
        folder = Path("/tmp") / f"nfcli-{os.geteuid()}"  # noqa: S108  owner, mode and linklessness are verified
    make_private_folder(folder)
    return folder
