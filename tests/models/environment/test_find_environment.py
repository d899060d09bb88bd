"""Which environment applies."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from nfcli.models.environment.locations import find_environment
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import InventoryError, NfcliError
from nfcli.models.inventory.loader import locate_state
from nfcli.models.inventory.scaffold import create_environment


def test_inventory_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare nfcli works with the inventory of the folder it is started in."""
    (tmp_path / "inventory.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert find_environment() == Environment(tmp_path, tmp_path / "inventory.yaml")


def test_the_folder_of_the_variable_comes_before_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for NorFab; a named inventory comes before both, and nothing stands in for a folder that has none."""
    for name in ("here", "there", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inventory.yaml").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NORFAB_INVENTORY_DIR", "../there")
    assert find_environment() == Environment(tmp_path / "there", tmp_path / "there" / "inventory.yaml")
    assert find_environment(tmp_path / "named").folder == tmp_path / "named"
    monkeypatch.setenv("NORFAB_INVENTORY_DIR", "")
    assert find_environment().folder == tmp_path / "here"
    monkeypatch.setenv("NORFAB_INVENTORY_DIR", str(tmp_path))
    with pytest.raises(
        InventoryError, match=rf"^NORFAB_INVENTORY_DIR: {tmp_path}/inventory.yaml: no such inventory file"
    ):
        find_environment()


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


def test_default_names_the_default_environment(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inventory in the working folder, another program's perhaps, is in the way no longer."""
    (tmp_path / "inventory.yaml").write_text("all: {hosts: {web: {}}}")
    monkeypatch.chdir(tmp_path)
    assert find_environment("default") == Environment(home / ".local" / "state" / "nfcli", None)


def test_working_folder_that_was_removed_has_no_inventory(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default environment applies, as in any folder without one."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert find_environment() == Environment(home / ".local" / "state" / "nfcli", None)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a user without `HOME` and without an account, as in many containers."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_user_without_a_home_needs_none_where_something_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, the working folder's inventory, or a folder for the state."""
    file = tmp_path / "inventory.yaml"
    monkeypatch.chdir(tmp_path)
    assert find_environment(state="here") == Environment(tmp_path / "here", None, tmp_path / "here")
    file.touch()
    assert find_environment() == find_environment(file) == Environment(tmp_path, file)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(("name", "state"), [("default", None), (None, None), (None, "~/nfcli"), ("~/x.yaml", None)])
def test_user_without_a_home_learns_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, state: str | None
) -> None:
    """One line, where a home is needed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NfcliError, match="home") as caught:
        find_environment(name, state)
    assert "\n" not in str(caught.value)


def test_places_for_the_state_are_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, the variable, the inventory, which is relative to its folder; an empty variable names none."""
    file = tmp_path / "etc" / "inventory.yaml"
    file.parent.mkdir()
    file.write_text("workers: {w1: [{service: fastmcp}]}\nstate: ../state\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NFCLI_STATE", "")
    assert locate_state(find_environment(file)).state_folder == tmp_path / "state"
    monkeypatch.setenv("NFCLI_STATE", "variable")
    assert locate_state(find_environment(file)).state_folder == tmp_path / "variable"
    found = locate_state(find_environment(file, "argument"))
    assert (found.state_folder, found.folder) == (tmp_path / "argument", file.parent)
    assert found.arguments == ["--inventory", str(file), "--state", str(tmp_path / "argument")]


def test_environments_with_states_of_their_own_share_no_socket(tmp_path: Path) -> None:
    """Also where the path of the socket is too long, and a short one is made of a digest."""
    one, other = (Environment(tmp_path, None, tmp_path / ("x" * 100) / name) for name in ("a", "b"))
    assert one.socket_file("w1") != other.socket_file("w1")


@pytest.mark.parametrize("has_inventory", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
def test_a_worker_process_finds_the_environment_by_its_arguments(
    tmp_path: Path, has_inventory: bool, has_state: bool
) -> None:
    """The folder or the inventory, and the state where that is named."""
    file = tmp_path / "inventory.yaml" if has_inventory else None
    environment = Environment(tmp_path, file, tmp_path / "state" if has_state else None)
    assert environment.arguments == [
        *(["--inventory", f"{tmp_path}/inventory.yaml"] if has_inventory else ["--environment", f"{tmp_path}"]),
        *(["--state", f"{tmp_path}/state"] if has_state else []),
    ]
