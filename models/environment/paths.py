"""Paths of an environment, and the rule of worker names.

An environment is the folder that holds `inventory.yaml`; what nfcli itself writes is stored in `.nfcli/` inside it,
folders 0700 and files 0600 whatever the umask (`models/environment/private_files.py`).

In a base folder of NorFab, and below one, it is stored outside: NorFab's file service gives every file below its base
folder to every client of the broker. Base folders are recognized by the folder that NorFab makes there at its start.

`--state DIR`, `NFCLI_STATE` or the inventory's `state` name another folder for it, in this order: an inventory may be
on a file system that is read-only. That folder may be the root of a volume, and have further files in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import platformdirs

from ..errors import EnvironmentFolderError
from .private_files import UncreatableFolderError, make_private_folder, open_private, verify_tree
from .trusted_files import state_group, user_name, verify_trusted

DEFAULT_WORKER = "fastmcp-worker-1"
INVENTORY_NAME = "inventory.yaml"
NORFAB_FOLDER = "__norfab__"
STATE_VARIABLE = "NFCLI_STATE"
MAX_WORKER_NAME_CHARACTERS = 64
# sun_path holds 108 bytes on Linux and 104 on the BSDs, the closing NUL included.
MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107

_WORKER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# `all` and `any` address several workers; keys/client.key is the local client's, keys/fleet.key the fleet's.
_RESERVED_NAMES = frozenset({"all", "any", "client", "fleet"})


@dataclass(frozen=True)
class Environment:
    """An environment folder and its inventory file, None when the built-in default inventory applies.

    `state` is where the state is stored, if another place than `.nfcli/` is named.

    Methods that take a worker's name raise `EnvironmentFolderError` for one that breaks the rule of worker names, so no
    name can lead out of the folder.
    """

    folder: Path
    inventory_file: Path | None
    state: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """The command-line arguments by which a worker process finds this environment."""
        state = [] if self.state is None else ["--state", str(self.state)]
        if self.inventory_file is not None:
            return ["--inventory", str(self.inventory_file), *state]
        return ["--environment", str(self.folder), *state]

    def with_state(self, state: str | None) -> Environment:
        """Return the environment with the state where its inventory says, unless `state` is None or it has one named.

        Raises:
            EnvironmentFolderError: `state` begins with the `~` of an unknown user, or this user has no home.
        """
        if state is None or self.state is not None:
            return self
        return replace(self, state=_absolute(self.folder, state))

    @cached_property
    def state_folder(self) -> Path:
        """Everything that nfcli writes."""
        if self.state is not None:
            return self.state
        return self._inner_state_folder if self.published_by is None else self._outer_state_folder

    @property
    def published_by(self) -> Path | None:
        """The base folder of NorFab that this environment's folder is, or is in; None where there is none."""
        return _norfab_base(self.folder)

    @property
    def _inner_state_folder(self) -> Path:
        return self.folder / ".nfcli"

    @property
    def _outer_state_folder(self) -> Path:
        folder = self.folder.resolve()
        label = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        return default_folder() / "environments" / f"{folder.name}-{label}"

    def publication_problem(self) -> str | None:
        """Return how NorFab's file service gives the state away, and the remedy; None if it doesn't."""
        base, old = self.published_by, self._inner_state_folder
        if self.state is not None and (state_base := _norfab_base(self.state)) is not None:
            return (
                f"{self.state} is in NorFab's base folder {state_base}, whose file service gives away all that is in "
                "it: name a folder elsewhere for the state"
            )
        if base is None:
            return None
        new = self.state or self._outer_state_folder
        if _norfab_base(new) is not None or not new.is_absolute():
            return (
                f"{self.folder} is in NorFab's base folder {base}, whose file service gives away all that is in it, "
                f"and so is {new}: set XDG_STATE_HOME to a folder elsewhere, "
                f"or remove {base / NORFAB_FOLDER} if NorFab no longer runs there"
            )
        if os.path.lexists(old):
            move = f"mkdir -pm 700 {shlex.quote(str(new.parent))} && mv {shlex.quote(str(old))} {shlex.quote(str(new))}"
            remedy = f"move {old} out of {base}" if os.path.lexists(new) else f"run {move}"
            return (
                f"{old} is in NorFab's base folder {base}, whose file service gives it to every client of the broker: "
                f"stop the workers, {remedy}, then replace keys and tokens (man page fabric)"
            )
        return None

    @property
    def keys_folder(self) -> Path:
        """CURVE key pairs of the workers and of the local client."""
        return self.state_folder / "keys"

    @property
    def clients_folder(self) -> Path:
        """Public keys of the clients that the workers authorize."""
        return self.state_folder / "clients"

    @property
    def verifiers_folder(self) -> Path:
        """Public keys of the clients that may ask about tokens and nothing else; created when it is first used."""
        return self.state_folder / "verifiers"

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
        """The history of the prompt."""
        return self.state_folder / "history"

    @property
    def jobs_file(self) -> Path:
        """The jobs that nobody waits for (`shell/client/jobs/records.py`)."""
        return self.state_folder / "jobs.json"

    @property
    def known_workers_file(self) -> Path:
        """The workers that clients have seen (`models/environment/known_workers.py`)."""
        return self.state_folder / "workers.json"

    @property
    def downloads_folder(self) -> Path:
        """The files that clients have fetched from a fabric to no other place; created when it is first used."""
        return self.state_folder / "downloads"

    def tokens_folder(self, name: str) -> Path:
        """Return the folder of a worker's token database."""
        return self.state_folder / "tokens" / _validated_name(name)

    def fetched_folder(self, name: str) -> Path:
        """Return the folder of the files that a worker has fetched from other services."""
        return self.state_folder / "fetched" / _validated_name(name)

    def lock_file(self, name: str) -> Path:
        """Return the lock file of the worker's name (`models/environment/worker_lock.py`)."""
        return self.run_folder / f"{_validated_name(name)}.lock"

    def log_file(self, name: str) -> Path:
        """Return a worker's structured log."""
        return self.logs_folder / f"{_validated_name(name)}.jsonl"

    def audit_file(self, name: str) -> Path:
        """Return a worker's audit trail."""
        return self.logs_folder / f"audit-{_validated_name(name)}.jsonl"

    def audit_key_file(self, name: str) -> Path:
        """Return the key of the fingerprints in a worker's audit trail."""
        return self.keys_folder / f"{_validated_name(name)}.audit_key"

    def signed_jobs_file(self, name: str) -> Path:
        """Return a worker's record of the signed jobs that it has run."""
        return self.run_folder / f"{_validated_name(name)}.signed_jobs"

    @property
    def fleet_key_file(self) -> Path:
        """The key that the environments of a fleet share (`models/environment/fleet_key.py`)."""
        return self.keys_folder / "fleet.key"

    def socket_endpoint(self, name: str) -> str:
        """Return the ZeroMQ endpoint of a worker's socket; a folder outside the environment is created or verified.

        Raises:
            EnvironmentFolderError: that folder can't be created or isn't private.
        """
        file = self.socket_file(name)
        if file.parent != self.run_folder.absolute():
            make_private_folder(file.parent)
        return f"ipc://{file}"

    def socket_file(self, name: str) -> Path:
        """Return the path of a worker's socket, without touching the disk.

        If the path in `run/` would exceed the limit for sockets, it is one in a shorter folder outside the environment,
        which must be a 0700 folder of this user. That folder depends on `XDG_RUNTIME_DIR`: ask the worker's lock, not
        this method, where a running worker listens.
        """
        file = self.run_folder.absolute() / f"{_validated_name(name)}.ipc"
        if _fits_socket_path(str(file)):
            return file
        folder = (self.state or self.folder).resolve()
        label = hashlib.sha256(os.fsencode(folder) + b"\0" + name.encode()).hexdigest()[:24]
        return _short_socket_folder() / label

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """The folders that `prepare` creates, the state folder first."""
        inside = (self.keys_folder, self.clients_folder, self.run_folder, self.logs_folder)
        return self.state_folder, *inside, self.state_folder / "tokens"

    def verify_folder(self) -> None:
        """Verify that other users can't change the environment's folder or replace it, and that NorFab publishes none.

        Raises:
            EnvironmentFolderError: they can (`trusted_files.py`), it can't be entered, or NorFab's file service gives
                the state away; the message names the remedy.
        """
        try:
            verify_trusted(self.folder)
            verify_trusted(self.state_folder.parent)
            if self.state is not None:
                verify_trusted(self.state, group=state_group())
            problem = self.publication_problem()
        except OSError as error:
            raise EnvironmentFolderError(f"{self.folder} can't be used: {error.strerror}") from error
        if problem is not None:
            raise EnvironmentFolderError(problem)

    def prepare(self) -> None:
        """Create what is missing of the `.nfcli/` tree, and verify owner and mode of everything in it.

        Safe to repeat, and to call from several processes at the same time.

        Raises:
            EnvironmentFolderError: something can't be created or read, is a symbolic link, belongs to another user, or
                is open to other users, or they can change the environment's folder or one above it; the message names
                the `chmod` that fixes it.
        """
        self.verify_folder()
        try:
            make_private_folder(self.state_folder.parent, parents=True, verify=False)
            for folder in self.private_folders:
                make_private_folder(folder, verify=folder != self.state)
        except UncreatableFolderError as error:
            raise EnvironmentFolderError(
                f"{error}: name a folder for the state with --state DIR, {STATE_VARIABLE} or state: in the inventory"
            ) from error
        # Environments are often part of a repository; keys and tokens must not be committed.
        with contextlib.suppress(FileExistsError), open_private(self.state_folder / ".gitignore", "x") as stream:
            stream.write("*\n")
        verify_tree(*self.verified_paths())

    def verified_paths(self) -> list[Path]:
        """Return what has to be private, with all in it: in a folder that was named for the state others may be."""
        if self.state is None:
            return [self.state_folder]
        known = self.known_workers_file
        files = [self.history_file, known, known.with_suffix(".lock"), self.state_folder / ".gitignore"]
        files += [self.verifiers_folder, self.jobs_file, self.jobs_file.with_suffix(".lock")]
        return [path for path in (*self.private_folders[1:], *files) if os.path.lexists(path)]


def named_state(state: str | Path | None) -> Path | None:
    """Return the folder for the state that `state` names, or `NFCLI_STATE`; None if neither does.

    Raises:
        EnvironmentFolderError: it begins with the `~` of an unknown user, or this user has no home.
    """
    name = state or os.environ.get(STATE_VARIABLE)
    return _absolute(Path(), name) if name else None


def _absolute(folder: Path, state: str | Path) -> Path:
    """Return a folder for the state, which may be relative to `folder`."""
    try:
        return Path(os.path.abspath(folder / Path(state).expanduser()))  # noqa: PTH100  resolves `..`, follows no link
    except (OSError, RuntimeError) as error:  # the working folder is gone; ~ of an unknown user
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentFolderError(f"the state can't be stored in {str(state)!r}: {reason}") from error


def default_folder() -> Path:
    """Return the folder of the user's default environment.

    Raises:
        EnvironmentFolderError: there is no home folder.
    """
    try:
        return platformdirs.user_state_path("nfcli", appauthor=False)
    except RuntimeError as error:
        raise EnvironmentFolderError(
            f"user {user_name(os.geteuid())} has no home folder and HOME is not set: set HOME, name a folder for the "
            f"state with --state DIR or {STATE_VARIABLE}, or name an inventory with -i FILE"
        ) from error


def _norfab_base(folder: Path) -> Path | None:
    """Return the base folder of NorFab that a folder is, or is in."""
    folder = folder.resolve()
    # `Path.is_dir` raises for a path that is too long.
    return next((each for each in (folder, *folder.parents) if os.path.isdir(each / NORFAB_FOLDER)), None)  # noqa: PTH112


def worker_name_problem(name: str) -> str | None:
    """Return the rule that a worker's name breaks, as the end of a sentence, or None."""
    if not 1 <= len(name) <= MAX_WORKER_NAME_CHARACTERS:
        return f"must be 1 to {MAX_WORKER_NAME_CHARACTERS} characters, got {len(name)}"
    if not _WORKER_NAME.fullmatch(name):
        return "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"
    if name.casefold() in _RESERVED_NAMES:
        return "is reserved: choose another name"
    if name.startswith("audit-"):  # logs/audit-X.jsonl is the audit trail of worker X
        return "must not begin with audit-"
    return None


def _validated_name(name: str) -> str:
    problem = worker_name_problem(name)
    if problem:
        raise EnvironmentFolderError(f"worker name {name[:80]!r} {problem}")
    return name


def _fits_socket_path(path: str) -> bool:
    try:
        return len(path.encode()) <= MAX_SOCKET_PATH_BYTES
    except UnicodeEncodeError:  # not UTF-8: pyzmq can't pass such a path on
        return False


def _short_socket_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / "nfcli"
    # 25: a slash and the label of 24 characters.
    if not (Path(runtime).is_absolute() and Path(runtime).is_dir() and _fits_socket_path(f"{folder}{'x' * 25}")):
        folder = Path("/tmp") / f"nfcli-{os.geteuid()}"  # noqa: S108  verified before use: owner, mode, not a link
    return folder
