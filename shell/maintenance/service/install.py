"""What `nfcli --install-service` installs: the systemd unit of an environment's workers, and how it is used."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
import sys
import sysconfig
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ....models.environment.paths import INVENTORY_NAME, MAX_SOCKET_PATH_BYTES, MAX_WORKER_NAME_CHARACTERS
from ....models.errors import ServiceError, UsageError
from .unit import MARK, Service, unit_text

DEFAULT_NAME = "nfcli"
SYSTEM_UNITS = Path("/etc/systemd/system")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNIT_MODE = 0o644
_ROOT = 0


@dataclass(frozen=True)
class Place:
    """The environment of a service: the arguments that name it, its folder, and that of its state."""

    arguments: tuple[str, ...]
    folder: Path
    state: Path


@dataclass(frozen=True)
class Unit:
    """A unit to install: its file, its text, and the commands that start it and manage its tokens."""

    file: Path
    text: str
    commands: tuple[str, ...]

    def write(self) -> None:
        """Write the file, in one step.

        Raises:
            ServiceError: the file can't be written, or something else has written it.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                if not self.file.read_text(encoding="utf-8", errors="replace").startswith(MARK):
                    raise ServiceError(
                        f"{self.file} was not written by nfcli: remove it, or name another service: "
                        "--install-service NAME"
                    )
            new = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            try:
                new.write_text(self.text, encoding="utf-8")
                new.chmod(_UNIT_MODE)
                new.replace(self.file)
            finally:
                new.unlink(missing_ok=True)
        except OSError as error:
            raise ServiceError(
                f"{self.file} can't be written: {error.strerror}: run the command with sudo, or print the unit with "
                "--dry-run"
            ) from error


def make_unit(
    place: Place,
    name: str = DEFAULT_NAME,
    *,
    for_user: bool,
    program: Path | None = None,
    interpreter: Sequence[Path] = (Path(sys.prefix), Path(sys.base_prefix)),
    user_id: int | None = None,
) -> Unit:
    """Return the unit of a service for an environment, of the system or of a user's own manager.

    `program` is what the service runs, by default what runs now, with the `interpreter` in these folders; `user_id` is
    who installs it.

    Raises:
        UsageError: `name` is not valid.
        ServiceError: the service would run as root, or couldn't reach what it needs.
    """
    file = unit_file(name, _user_units() if for_user else SYSTEM_UNITS)
    user_id = os.geteuid() if user_id is None else user_id
    program = program or find_program()
    if for_user and user_id == _ROOT:
        raise ServiceError("--user is for a service of your own account: run it without sudo and not as root")
    account = None if for_user else _find_account(place)
    readable = [program, *interpreter, place.folder]
    if account is not None:
        _check_reach(readable, account)
    service = Service(
        command=[str(program), *place.arguments, "-w"],
        state=place.state,
        readable=[*readable, *(path.resolve() for path in readable)],
        account="" if account is None else account.pw_name,
        has_private_sockets=_socket_bytes(place.state) <= MAX_SOCKET_PATH_BYTES,
    )
    shell = shlex.join([str(program), "-c", *place.arguments])
    return Unit(file, unit_text(service, file.stem), _commands(file.stem, shell, account))


def unit_file(name: str, folder: Path = SYSTEM_UNITS) -> Path:
    """Return the file of the unit of a service, which may be named with or without `.service`.

    Raises:
        UsageError: `name` is not valid.
    """
    name = name.removesuffix(".service")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a service: letters, digits, dashes, dots and underscores")
    return folder / f"{name}.service"


def find_program() -> Path:
    """Return the `nfcli` program of this installation.

    Raises:
        ServiceError: there is none.
    """
    for path in (Path(sys.argv[0]), Path(sysconfig.get_path("scripts")) / "nfcli"):
        if path.name == "nfcli" and path.is_file():
            return path.absolute()
    raise ServiceError("the program nfcli is not where it was installed: install it again")


def locate_as_root(inventory: Path | None, state: Path | None) -> Place:
    """Return the place of another account's environment without reading its files: they could be anything.

    Raises:
        ServiceError: no inventory is named, there is none, or no worker has ever used its state folder.
    """
    if inventory is None:
        raise ServiceError("name the inventory of the service: nfcli -i FILE --install-service")
    path = inventory.expanduser().absolute()
    file = path / INVENTORY_NAME if path.is_dir() else path
    if not file.is_file():
        raise ServiceError(f"{file}: no such inventory file: name an existing one with -i")
    folder = file.parent.resolve()
    named = () if state is None else ("--state", str(state.absolute()))
    place = Place(("-i", str(folder / file.name), *named), folder, state or folder / ".nfcli")
    if not place.state.is_dir():
        raise ServiceError(
            f"{place.state} doesn't exist: run nfcli -i {shlex.quote(str(file))} show norfab client as the account of "
            "the service, which creates it; if the inventory has a key state, name the folder with --state"
        )
    return place


def _find_account(place: Place) -> pwd.struct_passwd:
    """Return the owner of the state."""
    owner = place.state.stat().st_uid
    if owner == _ROOT:
        folder = shlex.quote(str(place.folder))
        raise ServiceError(
            f"{place.state} belongs to root, and the workers would run as root: give the environment an account of "
            f"its own: useradd --system mcp && chown -R mcp: {folder}"
        )
    try:
        return pwd.getpwuid(owner)
    except KeyError:
        raise ServiceError(f"{place.state} belongs to user {owner}, who has no account: chown it to one") from None


def _check_reach(paths: Iterable[Path], account: pwd.struct_passwd) -> None:
    """Raise unless an account may enter the folders above each path, and execute or enter the path itself."""
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    for path in paths:
        closed = _find_closed(path.resolve(), account.pw_uid, groups)
        if closed is not None:
            raise ServiceError(
                f"{account.pw_name} can't reach {path}: {closed} is closed to it: install nfcli, and put the "
                f"environment, where {account.pw_name} may read it"
            )


def _find_closed(path: Path, user_id: int, groups: Collection[int]) -> Path | None:
    """Return the first of a path and the folders above it that a user may neither enter nor execute."""
    for each in (*reversed(path.parents), path):
        status = each.stat()
        if status.st_uid == user_id:
            bit = stat.S_IXUSR
        elif status.st_gid in groups:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not status.st_mode & bit:
            return each
    return None


def _socket_bytes(state: Path) -> int:
    return len(os.fsencode(state / "run")) + len("/.ipc") + MAX_WORKER_NAME_CHARACTERS


def _user_units() -> Path:
    """Return where systemd looks for a user's own units."""
    configuration = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(configuration) if configuration.startswith("/") else Path.home() / ".config"
    return base / "systemd" / "user"


def _commands(name: str, shell: str, account: pwd.struct_passwd | None) -> tuple[str, ...]:
    """Return the commands that start the service, show its state, and manage its tokens."""
    if account is None:
        control = "systemctl --user"
        return (
            f"{control} daemon-reload && {control} enable --now {name}",
            "loginctl enable-linger",
            f"{control} status {name}",
            f"{shell} fastmcp auth list-tokens",
        )
    return (
        f"systemctl daemon-reload && systemctl enable --now {name}",
        f"systemctl status {name}",
        f"sudo -u {account.pw_name} {shell} fastmcp auth list-tokens",
    )
