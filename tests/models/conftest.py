"""What the tests of models share: a prepared environment, and inventories written as text."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.schema import Inventory


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=lambda value: f"umask {value:03o}")
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Run the test under an umask that keeps nothing, the usual, and everything away; `tmp_path` is made before."""
    assert tmp_path.exists()
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return a prepared environment without an inventory file, in a path with a blank in it."""
    made = Environment(tmp_path / "my environment", None)
    made.prepare()
    return made


class InventoryWriter(Protocol):
    """The type of the fixture `inventory`."""

    def __call__(self, **files: str) -> Inventory:
        """Write files, two underscores in a name standing for a dot, and load `inventory__yaml`."""


@pytest.fixture
def inventory(tmp_path: Path) -> InventoryWriter:
    """Write an inventory and its files into the test's folder and load it."""

    def write_and_load(**files: str) -> Inventory:
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        return load_inventory(Environment(tmp_path, tmp_path / "inventory.yaml"))

    return write_and_load


def mode_of(path: Path) -> str:
    """Return a file's permission bits as four octal digits."""
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


@pytest.fixture
def modes() -> object:
    """Return the function that maps everything below a folder, by relative path, to its permission bits."""

    def below(folder: Path) -> dict[str, str]:
        return {path.relative_to(folder).as_posix(): mode_of(path) for path in sorted(folder.rglob("*"))}

    return below
