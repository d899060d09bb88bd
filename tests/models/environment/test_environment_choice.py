"""Which environment applies, and how a new one is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment, find_environment
from nfcli.models.errors import EnvironmentFolderError, InventoryError
from nfcli.models.inventory.scaffold import create_environment
from nfcli.models.inventory.schema import AuthBearer, Inventory, Topology, WorkerInventory, load_inventory

Modes = Callable[[Path], dict[str, str]]


def test_inventory_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare nfcli works with the inventory of the folder it is started in."""
    (tmp_path / "inventory.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert find_environment() == Environment(tmp_path, tmp_path / "inventory.yaml")


def test_default_environment_lies_in_the_users_state_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an inventory nothing is written to the working folder; an inventory put into the default one counts."""
    monkeypatch.chdir(tmp_path)
    folder = home / ".local" / "state" / "nfcli"
    assert find_environment() == Environment(folder, None)
    created = create_environment(folder)
    assert find_environment() == created == Environment(folder, folder / "inventory.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given_name", ["other.yaml", "~/other.yaml", "link.yaml"])
def test_named_inventory_is_found(home: Path, monkeypatch: pytest.MonkeyPatch, given_name: str) -> None:
    """The environment is the folder the name leads to; a link to the file itself isn't followed for that."""
    (home / "real").mkdir()
    (home / "real" / "file").touch()
    (home / "other.yaml").touch()
    (home / "link.yaml").symlink_to(home / "real" / "file")
    monkeypatch.chdir(home)
    assert find_environment(given_name) == Environment(home, home / given_name.removeprefix("~/"))


def test_default_environment_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better than to go on as if there were none."""
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
    """The default environment never stands in for a file that was asked for."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / (name if name != "folder" else "folder/inventory.yaml")
    with pytest.raises(InventoryError) as caught:
        find_environment(tmp_path / name)
    assert str(caught.value) == (
        f"{path}: no such inventory file: name an existing one with -i, or make one with --create-env DIR"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("loop/inventory.yaml", "Symlink loop from '{folder}/loop'"),
        ("~no such user/inventory.yaml", "Could not determine home directory."),
    ],
)
def test_name_that_leads_nowhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """What the system or the library says of it comes out in one line."""
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InventoryError) as caught:
        find_environment(name)
    assert str(caught.value) == f"{name}: can't be found: {reason.replace('{folder}', str(tmp_path))}"


@pytest.mark.usefixtures("umask")
def test_created_environment_loads_with_authentication_on(tmp_path: Path, modes: Modes) -> None:
    """The files are private, they load as they are, and mean a worker on loopback that asks for tokens."""
    environment = create_environment(tmp_path / "new folder")
    assert environment == Environment(tmp_path / "new folder", tmp_path / "new folder" / "inventory.yaml")
    assert modes(tmp_path) == {
        "new folder": "0700",
        "new folder/fastmcp": "0700",
        "new folder/fastmcp/fastmcp-worker-1.yaml": "0600",
        "new folder/inventory.yaml": "0600",
    }
    assert load_inventory(environment) == Inventory(
        workers={
            "fastmcp-worker-1": WorkerInventory(
                service="fastmcp", authentication_enabled=True, auth_bearer=AuthBearer(token_ttl=None)
            )
        },
        topology=Topology(workers=("fastmcp-worker-1",)),
    )


@pytest.mark.parametrize("existing", ["inventory.yaml", "fastmcp/fastmcp-worker-1.yaml"])
def test_creating_an_environment_overwrites_nothing(tmp_path: Path, existing: str) -> None:
    """A file that is there stays as it is, and the other one isn't written either."""
    (tmp_path / existing).parent.mkdir(exist_ok=True)
    (tmp_path / existing).write_text("mine")
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(tmp_path)
    assert str(caught.value) == f"{tmp_path / existing} exists already: nothing was changed, name another folder"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_environment_in_a_folder_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """What the library says of it comes out in one line."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(loop / "new")
    assert str(caught.value) == f"{loop / 'new'} can't be made a folder: Symlink loop from '{loop / 'new'}'"


def test_environment_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """What is in the way is named."""
    (tmp_path / "fastmcp").touch()
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'fastmcp'} is in the way: a folder is needed there"


def test_full_disk_is_told_while_an_environment_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says comes out in one line."""

    def refuse(_path: Path, _mode: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nfcli.models.inventory.scaffold.open_private", refuse)
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(tmp_path)
    file = tmp_path / "fastmcp" / "fastmcp-worker-1.yaml"
    assert str(caught.value) == f"{file} can't be written: No space left on device"
