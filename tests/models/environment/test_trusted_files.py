"""Trusted files: who may own and write them, the folders and links on the way, and what the refusals say."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.models.environment.locations import find_environment
from nfcli.models.environment.paths import Environment
from nfcli.models.environment.trusted_files import (
    TRUSTED_FOLDERS_VARIABLE,
    is_open_to_group,
    is_private_group,
    open_trusted,
    verify_trusted,
)
from nfcli.models.errors import EnvironmentFolderError, InventoryError

STRANGER, GROUP = 12_345, 23_456
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def _no_groups_remembered() -> Iterator[None]:
    """Forget the groups that other tests have made up."""
    is_private_group.cache_clear()
    yield
    is_private_group.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a file two folders down."""
    file = tmp_path / "outer" / "inner" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("content")
    return file


def refusal(path: Path) -> str:
    """Return the line by which a path is refused, for reading and for use alike."""
    with pytest.raises(EnvironmentFolderError) as caught:
        open_trusted(path)
    with pytest.raises(EnvironmentFolderError) as again:
        verify_trusted(path)
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_ones_own_file_is_read(file: Path) -> None:
    """Whatever others may read."""
    file.chmod(0o644)
    with open_trusted(file) as stream:
        assert stream.read() == b"content"


def test_missing_paths_and_folders_raise_as_open_does(file: Path) -> None:
    """As far as it exists, the way is verified; what is missing can only be created by oneself."""
    verify_trusted(file.parent / "missing" / "file")
    with pytest.raises(FileNotFoundError):
        open_trusted(file.parent / "missing" / "file")
    with pytest.raises(IsADirectoryError):
        open_trusted(file.parent)


@pytest.mark.parametrize("name", ["outer/inner/file", "outer/inner", "outer"])
@pytest.mark.parametrize(("mode", "bits"), [(0o777, "o-w"), (0o602, "o-w"), (0o722, "o-w")])
def test_what_others_can_write_is_refused(tmp_path: Path, file: Path, name: str, mode: int, bits: str) -> None:
    """The file, its folder, and any folder above: in each the file could be replaced."""
    wide = tmp_path / name
    if wide.is_dir():
        mode |= 0o500
    wide.chmod(mode)
    line = refusal(file)
    assert line.startswith(f"{wide} has mode {mode:04o} and can be changed by other users, who would control nfcli: ")
    assert line.endswith((f"run chmod {bits} {wide}", f"run chmod g{bits} {wide}"))
    subprocess.run(line.rpartition("run ")[2].split(), check=True)
    open_trusted(file).close()


@pytest.mark.parametrize("name", ["outer/inner/file", "outer/inner", "outer"])
def test_what_a_shared_group_can_write_is_refused(
    tmp_path: Path, file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group has another member."""
    group = grp.struct_group(("devs", "x", os.getegid(), ["ann", "bob"]))
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    wide = tmp_path / name
    wide.chmod(0o770)
    assert refusal(file).endswith(f": run chmod g-w {wide}")


@pytest.mark.parametrize(
    ("group", "others", "is_private"),
    [
        (("ann", "x", 4711, []), [], True),
        (("ann", "x", 4711, ["ann"]), [], True),
        (("ann", "x", 4711, ["bob"]), [], False),
        (("ann", "x", 4711, []), ["bob"], False),
        (("users", "x", 4711, []), [], False),
        (("root", "x", 0, []), [], True),
        (("root", "x", 0, ["root"]), ["sync"], True),
        (("root", "x", 0, ["bob"]), [], False),
    ],
)
def test_ones_own_private_group_may_write(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: tuple[str, str, int, list[str]],
    others: list[str],
    is_private: bool,
) -> None:
    """As with umask 002: a group of the user's name without other members, and root's; not one that others share."""
    gid = group[2]
    accounts = [
        pwd.struct_passwd((each, "x", os.geteuid() + index, gid, "", "/", "/bin/sh"))
        for index, each in enumerate(["ann", *others])
    ]
    monkeypatch.setattr(pwd, "getpwuid", lambda _: accounts[0])
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(group))
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        return os.stat_result([*found[:5], gid, *found[6:]])

    monkeypatch.setattr(os, "fstat", fstat)
    file.chmod(0o664)
    file.parent.chmod(0o775)
    if is_private:
        verify_trusted(file)
    else:
        with pytest.raises(EnvironmentFolderError, match=f"run chmod g-w {file.parent}$"):
            verify_trusted(file)


def test_sticky_folders_may_be_open_to_all(file: Path) -> None:
    """As `/tmp`: others can't replace what they don't own."""
    file.parent.chmod(0o1777)
    open_trusted(file).close()


@needs_root
@pytest.mark.parametrize("name", ["outer/inner/file", "outer/inner", "outer"])
def test_what_another_user_owns_is_refused(tmp_path: Path, file: Path, name: str) -> None:
    """Also in a sticky folder, also for root."""
    file.parent.chmod(0o1777)
    os.chown(tmp_path / name, STRANGER, STRANGER)
    line = refusal(file)
    assert line == (
        f"{tmp_path / name} belongs to user {STRANGER}, who would control nfcli: "
        f"run nfcli as that user, or run chown root {tmp_path / name}"
    )
    subprocess.run(line.rpartition("run ")[2].split(), check=True)
    open_trusted(file).close()


@needs_root
def test_root_may_own_what_an_arbitrary_user_runs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, with a user that has no account."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    open_trusted(file).close()
    os.chown(file, STRANGER, 0)
    file.chmod(0o664)
    open_trusted(file).close()


@needs_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "is_open"),
    [
        (STRANGER, GROUP, 0o660, True),
        (0, GROUP, 0o660, True),
        (STRANGER + 1, GROUP, 0o660, False),
        (STRANGER, GROUP + 1, 0o660, False),
        (STRANGER, GROUP, 0o664, False),
        (STRANGER, GROUP, 0o661, False),
        (STRANGER, GROUP, 0o662, False),
    ],
)
def test_a_file_may_be_open_to_the_group_that_is_named(  # noqa: PLR0917  one row of a table
    file: Path, monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, is_open: bool
) -> None:
    """If it is root's or one's own, and open to nobody else; a folder must pass its group on."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    for place, more in ((file, 0), (file.parent, 0o2010)):
        os.chown(place, owner, group)
        place.chmod(mode | more)
        assert is_open_to_group(place, place.stat(), GROUP) is is_open
        assert not is_open_to_group(place, place.stat(), None)
    file.parent.chmod(mode | 0o010)
    assert not is_open_to_group(file.parent, file.parent.stat(), GROUP)


@needs_root
def test_an_access_control_list_counts(file: Path) -> None:
    """A group's bits are those of the list's mask then, and the group may be as private as it likes."""
    entries = [(1, 6, 0xFFFFFFFF), (2, 6, STRANGER), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    content = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, bits, who in entries
    )
    try:
        os.setxattr(file, "system.posix_acl_access", content)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert refusal(file).endswith(f"run chmod g-w {file}")


@pytest.mark.parametrize("target", ["../real/file", "{folder}/real/file", "./.././outer/../real/file"])
def test_links_are_followed_and_their_targets_verified(tmp_path: Path, file: Path, target: str) -> None:
    """To wherever they lead."""
    real = tmp_path / "real" / "file"
    real.parent.mkdir()
    real.write_text("linked")
    link = file.with_name("link")
    (tmp_path / "outer" / "link").symlink_to(target.format(folder=tmp_path))
    link.symlink_to("../link")
    with open_trusted(link) as stream:
        assert stream.read() == b"linked"
    real.parent.chmod(0o777)
    assert refusal(link).endswith(f"run chmod go-w {real.parent}") or refusal(link).endswith(f"o-w {real.parent}")


@needs_root
def test_a_link_of_another_user_is_refused(file: Path) -> None:
    """Its owner decides where it leads."""
    file.parent.chmod(0o1777)
    link = file.with_name("link")
    link.symlink_to(file)
    os.lchown(link, STRANGER, STRANGER)
    assert refusal(link).endswith(f": run nfcli as that user, or run chown -h root {link}")


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    """As `open` has it."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_trusted(tmp_path / "a")


def test_links_of_a_mounted_configuration_are_followed(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into `..data`, which is a link itself."""
    (tmp_path / "..2026_11_30").mkdir()
    (tmp_path / "..2026_11_30" / "inventory.yaml").write_text("workers: {}")
    (tmp_path / "..data").symlink_to("..2026_11_30")
    (tmp_path / "inventory.yaml").symlink_to("..data/inventory.yaml")
    with open_trusted(tmp_path / "inventory.yaml") as stream:
        assert stream.read() == b"workers: {}"


def test_a_file_system_mounted_read_only_has_no_writers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a ConfigMap has mode 0777."""
    file.parent.chmod(0o777)
    refusal(file)
    real = os.fstatvfs

    class ReadOnly:
        f_flag = os.ST_RDONLY

    inode = file.parent.stat().st_ino
    monkeypatch.setattr(os, "fstatvfs", lambda number: ReadOnly() if os.fstat(number).st_ino == inode else real(number))
    open_trusted(file).close()


def test_folders_named_in_the_environment_may_have_any_mode(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume of a container, which nobody else uses; nothing above or below it."""
    file.parent.chmod(0o777)
    monkeypatch.setenv(TRUSTED_FOLDERS_VARIABLE, f"/elsewhere:{file.parent}")
    open_trusted(file).close()
    file.chmod(0o666)
    assert refusal(file).endswith(f"o-w {file}")


@needs_root
def test_a_named_folder_still_has_a_trusted_owner(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is about modes only."""
    os.chown(file.parent, STRANGER, -1)
    monkeypatch.setenv(TRUSTED_FOLDERS_VARIABLE, str(file.parent))
    assert "belongs to user" in refusal(file)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """Opening a FIFO doesn't wait for who writes to it."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") == f"{tmp_path / 'pipe'} must be a regular file: move away what is there"


def test_descriptors_are_closed(file: Path) -> None:
    """Also after refusals."""
    count = len([*Path("/proc/self/fd").iterdir()])
    file.with_name("link").symlink_to("../inner/file")
    for _ in range(20):
        open_trusted(file.with_name("link")).close()
        verify_trusted(file)
    file.chmod(0o666)
    for _ in range(20):
        refusal(file)
    assert len([*Path("/proc/self/fd").iterdir()]) == count


def test_an_environment_that_others_can_replace_is_not_prepared(tmp_path: Path) -> None:
    """Nothing is created in it."""
    tmp_path.chmod(0o777)
    folder = tmp_path / "environment"
    with pytest.raises(EnvironmentFolderError, match=f"{tmp_path} has mode 0777"):
        Environment(folder, None).prepare()
    assert not folder.exists()


@needs_root
def test_links_in_the_path_of_a_named_inventory_are_verified(tmp_path: Path) -> None:
    """Their owner could lead to any other environment."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "inventory.yaml").write_text("workers: {}")
    tmp_path.chmod(0o1777)
    link = tmp_path / "link"
    link.symlink_to("mine")
    assert find_environment(link).folder == link
    os.lchown(link, STRANGER, STRANGER)
    for name in (link, link / "inventory.yaml"):
        with pytest.raises(InventoryError, match=f"{link} belongs to user {STRANGER}"):
            find_environment(name)
