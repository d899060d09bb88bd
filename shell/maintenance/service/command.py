"""The program's side of `--install-service`: which environment, what is printed, and where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ....models.environment.locations import DEFAULT_ENVIRONMENT, find_environment
from ....models.environment.paths import named_state
from ....models.errors import EXIT_OK, ServiceError
from ....models.inventory.loader import locate_state
from .install import Place, locate_as_root, make_unit, unit_file

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
    user_id: int | None = None,
) -> int:
    """Write the unit, or with `is_dry_run` print it, and report what to run; return the exit status.

    `user_id` is who installs it, by default who runs this process.

    Raises:
        NfcliError: the service can't be installed; nothing was written.
    """
    if sys.platform != "linux":
        raise ServiceError("--install-service makes units of systemd, for Linux: run nfcli -w from the service manager")
    is_root = (os.geteuid() if user_id is None else user_id) == 0
    if not (for_user or is_root or is_dry_run):
        file = unit_file(name)
        raise ServiceError(
            f"only root can write {file}: run the command again with --dry-run | sudo tee {file}, "
            "or with --user for a service of your own account"
        )
    if is_root and not for_user:
        place = locate_as_root(None if inventory is None else Path(inventory), named_state(state))
    else:
        place = _locate(inventory, state)
    unit = make_unit(place, name, for_user=for_user, user_id=user_id)
    if is_dry_run:
        sys.stdout.write(unit.text)
        notice(f"this would be {unit.file}; then:")
    else:
        unit.write()
        notice(f"{unit.file} written; then:")
    for title, command in zip(_TITLES_OF_USER if for_user else _TITLES_OF_SYSTEM, unit.commands, strict=True):
        notice(f"  {title}: {command}")
    return EXIT_OK


def _locate(inventory: str | Path | None, state: Path | None) -> Place:
    found = find_environment(inventory, state)
    environment = locate_state(found)
    environment.prepare()
    arguments: tuple[str, ...] = ("-i", str(environment.inventory_file or DEFAULT_ENVIRONMENT))
    if found.state is not None:
        arguments += ("--state", str(found.state))
    return Place(arguments, environment.folder, environment.state_folder)
