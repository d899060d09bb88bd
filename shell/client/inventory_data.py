"""An inventory that a program has as data: a private file, since workers are processes that read one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models.environment.private_files import write_private
from ...models.errors import EnvironmentFolderError, InventoryError, UsageError


def write_inventory(data: Mapping[str, Any], base_dir: str | Path | None = None) -> Path:
    """Write an inventory to a new file in `base_dir`, by default the working folder; return its path.

    Only this user can read it. Paths in the data are relative to the folder, as in a file.

    Raises:
        UsageError: the data is no mapping, or has values that JSON doesn't have.
        InventoryError: the file can't be written.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"inventory_data must be a mapping, got {type(data).__name__}")
    try:
        text = json.dumps(dict(data), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"inventory_data must have values of JSON: {error}") from None
    try:
        folder = (Path.cwd() if base_dir is None else Path(base_dir).expanduser()).resolve(strict=True)
        file = folder / f".inventory-{secrets.token_hex(6)}.yaml"
        write_private(file, text.encode())
    except (OSError, RuntimeError, EnvironmentFolderError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InventoryError(f"base_dir {base_dir or '.'}: the inventory can't be written there: {reason}") from None
    return file
