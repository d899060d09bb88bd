"""The program's side of `--install-service`: which environment, what is printed, and where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ....models.environment.locations import find_environment
from ....models.environment.paths import named_state
from ....models.errors import EXIT_OK, ServiceError
from ....models.inventory.loader import locate_state
from .install import Place, Unit, locate_as_root, make_unit

_TITLES_OF_USER = (
    "start it, now and whenever you log in",
    "let it run while you are not logged in",
    "see how it is",
    "manage its tokens",
)
_TITLES_OF_SYSTEM = ("start it, now and at boot", "see how it is", "manage its tokens")


def install_service(
    inventory: str | Path | None,
    name: str,
    *,
    for_user: bool,
    is_dry_run: bool,
    notice: Callable[[str], None],
    state: Path | None = None,
) -> int:
    """Write the unit, or with `is_dry_run` print it, and report what to run; return the exit status.

    Raises:
        NfcliError: the service can't be installed; nothing was written.
    """
    if sys.platform != "linux":
        raise ServiceError("--install-service makes units of systemd, for Linux: run nfcli -w from the service manager")
    unit = make_unit(_locate(inventory, state, for_user=for_user), name, for_user=for_user)
    if is_dry_run:
        sys.stdout.write(unit.text)
        notice(f"this would be {unit.file}; then:")
    else:
        _check_rights(unit, for_user=for_user)
        unit.write()
        notice(f"{unit.file} written; then:")
    for title, command in zip(_TITLES_OF_USER if for_user else _TITLES_OF_SYSTEM, unit.commands, strict=True):
        notice(f"  {title}: {command}")
    return EXIT_OK


def _locate(inventory: str | Path | None, state: Path | None, *, for_user: bool) -> Place:
    if os.geteuid() == 0 and not for_user:
        return locate_as_root(None if inventory is None else Path(inventory), named_state(state))
    found = find_environment(inventory, state)
    environment = locate_state(found)
    environment.prepare()
    file = environment.inventory_file
    arguments: tuple[str, ...] = () if file is None else ("-i", str(file))
    if found.state is not None:
        arguments += ("--state", str(found.state))
    return Place(arguments, environment.folder, environment.state_folder)


def _check_rights(unit: Unit, *, for_user: bool) -> None:
    if not for_user and os.geteuid() != 0:
        raise ServiceError(
            f"only root can write {unit.file}: run the command again with --dry-run | sudo tee {unit.file}, "
            "or with --user for a service of your own account"
        )
