"""Which environment applies."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment, find_environment
from nfcli.models.errors import InventoryError
from nfcli.models.inventory.scaffold import create_environment


def test_inventory_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare nfcli works with the inventory of the folder it is started in."""
    (tmp_path / "inventory.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert find_environment() == Environment(tmp_path, tmp_path / "inventory.yaml")


def test_default_environment_is_in_the_users_state_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to the working folder; an inventory in the default environment applies."""
    monkeypatch.chdir(tmp_path)
    folder = home / ".local" / "state" / "nfcli"
    assert find_environment() == Environment(folder, None)
    created = create_environment(folder)
    assert find_environment() == created == Environment(folder, folder / "inventory.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given_name", ["other.yaml", "~/other.yaml", "link.yaml"])
def test_named_inventory_is_found(home: Path, monkeypatch: pytest.MonkeyPatch, given_name: str) -> None:
    """The environment is the file's folder; a link to the file itself isn't followed."""
    (home / "real").mkdir()
    (home / "real" / "file").touch()
    (home / "other.yaml").touch()
    (home / "link.yaml").symlink_to(home / "real" / "file")
    monkeypatch.chdir(home)
    assert find_environment(given_name) == Environment(home, home / given_name.removeprefix("~/"))


def test_default_environment_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't taken for one without an inventory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", f"/{'x' * 300}")
    with pytest.raises(InventoryError) as caught:
        find_environment()
    assert str(caught.value) == f"/{'x' * 300}/nfcli/inventory.yaml: can't be read: File name too long"


def test_named_folder_means_its_inventory(tmp_path: Path) -> None:
    """`-i FOLDER` works when the folder holds one."""
    (tmp_path / "inventory.yaml").touch()
    assert find_environment(tmp_path) == Environment(tmp_path, tmp_path / "inventory.yaml")


@pytest.mark.parametrize("name", ["missing.yaml", "file/inventory.yaml", "folder"])
def test_named_inventory_that_is_missing_is_an_error(tmp_path: Path, name: str) -> None:
    """The default environment never replaces a file that was named."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / (name if name != "folder" else "folder/inventory.yaml")
    with pytest.raises(InventoryError) as caught:
        find_environment(tmp_path / name)
    assert str(caught.value) == (
        f"{path}: no such inventory file: name an existing one with -i, or create one with --create-env DIR"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("loop/inventory.yaml", "Too many levels of symbolic links"),
        ("~no such user/inventory.yaml", "Could not determine home directory."),
    ],
)
def test_path_that_cannot_be_resolved_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """The message has the system's or the library's reason."""
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InventoryError) as caught:
        find_environment(name)
    assert str(caught.value) == f"{name}: can't be found: {reason.replace('{folder}', str(tmp_path))}"
