"""Installing a service: which account it gets, what is refused, and what is written."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.models.errors import ServiceError, UsageError
from nfcli.shell.maintenance.service.install import Place, Unit, find_program, locate_as_root, make_unit
from nfcli.shell.maintenance.service.unit import MARK

PROGRAM = Path("/bin/true")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="files can be given to another account by root alone")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An environment with a state folder."""
    (tmp_path / ".nfcli").mkdir(mode=0o700)
    (tmp_path / "inventory.yaml").write_text("workers: {}\n")
    return Place(("-i", str(tmp_path / "inventory.yaml")), tmp_path, tmp_path / ".nfcli")


@pytest.fixture
def daemons(place: Place) -> Iterator[Place]:
    """The environment of the account `daemon`, in folders that it may enter."""
    opened = []
    for folder in (place.folder, *place.folder.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            opened.append((folder, mode))
            folder.chmod(mode | stat.S_IXOTH)
    account = pwd.getpwnam("daemon")
    for path in (place.folder, place.state):
        os.chown(path, account.pw_uid, account.pw_gid)
    yield place
    for folder, mode in opened:
        folder.chmod(mode)


def test_a_user_gets_a_unit_of_its_own_manager(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder of its configuration; the commands start it and manage its tokens."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unit = make_unit(place, "lab.service", for_user=True, program=PROGRAM, interpreter=(), user_id=1000)
    assert unit.file == tmp_path / "config" / "systemd" / "user" / "lab.service"
    assert f"ExecStart=/bin/true -i {place.folder}/inventory.yaml -w" in unit.text.splitlines()
    assert unit.commands == (
        "systemctl --user daemon-reload && systemctl --user enable --now lab",
        "loginctl enable-linger",
        "systemctl --user status lab",
        f"/bin/true -c -i {place.folder}/inventory.yaml fastmcp auth list-tokens",
    )
    unit.write()
    unit.write()
    assert unit.file.read_text() == unit.text
    assert stat.S_IMODE(unit.file.stat().st_mode) == 0o644
    assert [each.name for each in unit.file.parent.iterdir()] == ["lab.service"]


@NEEDS_ROOT
def test_the_system_gets_a_unit_that_runs_as_the_owner_of_the_state(daemons: Place) -> None:
    """Not as root, who installs it; tokens are managed with sudo as that account."""
    unit = make_unit(daemons, for_user=False, program=PROGRAM, interpreter=())
    assert unit.file == Path("/etc/systemd/system/nfcli.service")
    assert {"User=daemon", f"ReadWritePaths={daemons.state}"} <= set(unit.text.splitlines())
    shell = f"sudo -u daemon /bin/true -c -i {daemons.folder}/inventory.yaml"
    assert unit.commands[-1] == f"{shell} fastmcp auth list-tokens"


@NEEDS_ROOT
def test_a_service_does_not_run_as_root(place: Place) -> None:
    """The line says how to give the environment an account."""
    with pytest.raises(ServiceError, match=r"belongs to root, .*: useradd --system mcp && chown -R mcp: "):
        make_unit(place, for_user=False, program=PROGRAM, interpreter=())


@NEEDS_ROOT
def test_what_the_account_cannot_reach_is_refused(daemons: Place) -> None:
    """A program in a home folder, for instance; the line names the folder that is closed."""
    closed = daemons.folder / "venv"
    closed.mkdir(mode=0o700)
    (closed / "nfcli").write_text("#!/bin/sh\n")
    with pytest.raises(ServiceError, match=rf"^daemon can't reach {closed}/nfcli: {closed} is closed to it"):
        make_unit(daemons, for_user=False, program=closed / "nfcli", interpreter=())
    with pytest.raises(ServiceError, match=rf"^daemon can't reach {closed}: "):
        make_unit(daemons, for_user=False, program=PROGRAM, interpreter=(closed,))


@NEEDS_ROOT
def test_an_owner_without_an_account_is_refused(place: Place) -> None:
    """As in a folder of a container's."""
    os.chown(place.state, 54_321, 54_321)
    with pytest.raises(ServiceError, match="belongs to user 54321, who has no account"):
        make_unit(place, for_user=False, program=PROGRAM, interpreter=())


def test_a_user_unit_is_not_for_root(place: Place) -> None:
    """It would run the workers as root, in a session that nobody opens."""
    with pytest.raises(ServiceError, match="run it without sudo"):
        make_unit(place, for_user=True, program=PROGRAM, user_id=0)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a/b", "x" * 65, "a\n"])
def test_the_name_of_a_service_is_checked(place: Place, name: str) -> None:
    """It becomes the name of a file."""
    with pytest.raises(UsageError, match="is not the name of a service"):
        make_unit(place, name, for_user=True, program=PROGRAM, user_id=1000)


def test_a_unit_that_something_else_wrote_stays(tmp_path: Path) -> None:
    """One that nfcli wrote is replaced."""
    file = tmp_path / "nfcli.service"
    unit = Unit(file, f"{MARK}\nnew\n", ())
    file.write_text("[Unit]\n")
    with pytest.raises(ServiceError, match="was not written by nfcli"):
        unit.write()
    assert file.read_text() == "[Unit]\n"
    file.write_text(f"{MARK}systemctl edit\nold\n")
    unit.write()
    assert file.read_text() == unit.text


def test_a_unit_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """It says how to go on."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="can't be written: File exists: run the command with sudo"):
        Unit(tmp_path / "file" / "nfcli.service", MARK, ()).write()


def test_root_reads_no_file_of_another_account(place: Place) -> None:
    """Only names and owners count; the state folder has to exist."""
    (place.folder / "inventory.yaml").write_text("{{{ not yaml")
    assert locate_as_root(place.folder, None) == place
    assert locate_as_root(place.folder / "inventory.yaml", None) == place
    elsewhere = place.folder / "elsewhere"
    with pytest.raises(ServiceError, match="doesn't exist: run nfcli -i"):
        locate_as_root(place.folder, elsewhere)
    elsewhere.mkdir()
    assert locate_as_root(place.folder, elsewhere).arguments[2:] == ("--state", str(elsewhere))
    with pytest.raises(ServiceError, match="no such inventory file"):
        locate_as_root(place.folder / "nothing.yaml", None)
    with pytest.raises(ServiceError, match="name the inventory"):
        locate_as_root(None, None)


def test_the_program_is_the_installed_one() -> None:
    """The service has to run what was installed, from any folder."""
    assert find_program().is_absolute()
    assert find_program().name == "nfcli"
