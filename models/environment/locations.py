"""Which environment applies: the one that is named, the working folder's, or the user's default one."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import EnvironmentFolderError, InventoryError
from .paths import INVENTORY_NAME, Environment, default_folder, named_state
from .trusted_files import verify_trusted

FOLDER_VARIABLE = "NORFAB_INVENTORY_DIR"
DEFAULT_ENVIRONMENT = "default"
"""What `-i` takes for the user's default environment, whatever the working folder has."""


def find_environment(inventory: str | Path | None = None, state: str | Path | None = None) -> Environment:
    """Return the environment of an inventory file, or of the folder that holds one.

    Without `inventory` it is the folder that `NORFAB_INVENTORY_DIR` names, as for NorFab; else the working folder if
    that holds `inventory.yaml`, else the user's default environment, which `default` names. `state` is the folder for
    its state; without it `NFCLI_STATE` names one, or the inventory.

    Raises:
        InventoryError: `inventory` doesn't exist, can't be accessed, or other users could replace it.
        EnvironmentFolderError: this user has no home folder, and nothing else is named.
    """
    place = named_state(state)
    folder = os.environ.get(FOLDER_VARIABLE)
    if inventory is None and folder:
        try:
            return _named_environment(Path(folder), place)
        except InventoryError as error:
            raise InventoryError(f"{FOLDER_VARIABLE}: {error}") from error
    if inventory is not None and str(inventory) != DEFAULT_ENVIRONMENT:
        return _named_environment(Path(inventory), place)
    file = None if inventory is not None else _working_folder_inventory()
    if file is not None:
        return Environment(folder=file.parent, inventory_file=file, state=place)
    try:
        default = default_folder()
    except EnvironmentFolderError:
        if place is None:
            raise
        return Environment(folder=place, inventory_file=None, state=place)
    try:
        has_inventory = (default / INVENTORY_NAME).is_file()
    except OSError as error:  # another user's folder, for instance root's
        raise InventoryError(f"{error.filename}: can't be read: {error.strerror}") from error
    return Environment(default, default / INVENTORY_NAME if has_inventory else None, place)


def _working_folder_inventory() -> Path | None:
    """Return the inventory in the working folder; None also where that can't be entered, or was removed."""
    try:
        return Path.cwd() / INVENTORY_NAME if Path(INVENTORY_NAME).is_file() else None
    except (PermissionError, FileNotFoundError):
        return None


def _named_environment(inventory: Path, state: Path | None) -> Environment:
    try:
        path = inventory.expanduser().absolute()
        verify_trusted(path)  # the links on the way too, which are followed here
        # The file itself may be a link (a mounted configuration); the environment is the link's folder.
        path = path.parent.resolve() / path.name
        file = path / INVENTORY_NAME if path.is_dir() else path
        is_file = file.is_file()
    except EnvironmentFolderError as error:
        raise InventoryError(str(error)) from error
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links, ~ of an unknown user
        reason = error.strerror if isinstance(error, OSError) else error
        raise InventoryError(f"{inventory}: can't be found: {reason}") from error
    if not is_file:
        raise InventoryError(
            f"{file}: no such inventory file: name an existing one with -i, or create one with --create-env DIR"
        )
    return Environment(folder=file.parent, inventory_file=file, state=state)
