"""Space on a disk: when it counts as full, and the space that is kept back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.worker.tokens.fallback.disk_space import Reserve, space_problem

KIB = 1024


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Have the file system report what a test sets."""
    disk = SimpleNamespace(f_flag=0, f_files=100, f_favail=100, f_bavail=1_000_000, f_frsize=KIB)
    monkeypatch.setattr(os, "statvfs", lambda _folder: disk)
    return disk


@pytest.mark.parametrize("is_thorough", [False, True])
def test_a_disk_with_room_has_no_problem(tmp_path: Path, disk: SimpleNamespace, is_thorough: bool) -> None:
    """Nothing is left in the folder; 64 KiB are enough, and file systems without a number of files too."""
    assert space_problem(tmp_path, is_thorough=is_thorough) is None
    disk.f_bavail, disk.f_files, disk.f_favail = 64, 0, 0
    assert space_problem(tmp_path, is_thorough=is_thorough) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"f_bavail": 63}, "is full: make room on it"),
        ({"f_bavail": 127, "f_frsize": 512}, "is full: make room on it"),
        ({"f_favail": 0}, "is full: make room on it"),
        ({"f_flag": os.ST_RDONLY | os.ST_NOSUID}, "is mounted read-only: mount it writable"),
    ],
)
def test_a_disk_without_room_has_a_problem(
    tmp_path: Path, disk: SimpleNamespace, values: dict[str, int], problem: str
) -> None:
    """Of bytes or of files, or because it is mounted read-only."""
    vars(disk).update(values)
    assert space_problem(tmp_path, is_thorough=False) == f"the disk of {tmp_path} {problem}"


@pytest.mark.usefixtures("disk")
def test_a_disk_that_refuses_a_file_has_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota shows only then; what is looked at without writing doesn't."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "write", refuse)
    assert space_problem(tmp_path, is_thorough=False) is None
    assert space_problem(tmp_path, is_thorough=True) == (
        f"the disk of {tmp_path} can't be written (Disk quota exceeded): make room on it, or check its mount"
    )


@pytest.mark.parametrize(
    ("number", "is_problem"),
    [(errno.EISDIR, False), (errno.ENOENT, False), (errno.EOPNOTSUPP, False), (errno.EACCES, True), (errno.EIO, True)],
)
@pytest.mark.usefixtures("disk")
def test_a_file_system_without_unnamed_files_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_problem: bool
) -> None:
    """NFS and some others have none; other errors are those of the disk."""
    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert (space_problem(tmp_path, is_thorough=True) is not None) is is_problem


@pytest.mark.usefixtures("disk")
def test_a_disk_that_takes_a_file_and_does_not_store_it_has_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk may say so only at the end, as network file systems do."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    assert str(space_problem(tmp_path, is_thorough=True)).startswith(
        f"the disk of {tmp_path} can't be written (Input/output error): "
    )


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """Its file system isn't mounted."""
    folder = tmp_path / "gone"
    assert space_problem(folder, is_thorough=False) == (
        f"the disk of {folder} can't be written (No such file or directory): make room on it, or check its mount"
    )


def test_256_kib_are_kept_back_and_released_once(tmp_path: Path) -> None:
    """In a private file of bytes that no file system can compress."""
    reserve = Reserve(tmp_path)
    assert (reserve.exists(), reserve.release()) == (False, False)
    assert reserve.restore()
    file = tmp_path / "reserve"
    content = file.read_bytes()
    assert (reserve.exists(), len(content), oct(file.stat().st_mode)) == (True, 256 * KIB, "0o100600")
    assert len(set(content)) == 256
    assert reserve.restore()
    assert file.read_bytes() == content
    assert (reserve.release(), reserve.exists(), list(tmp_path.iterdir())) == (True, False, [])


@pytest.mark.parametrize(("kib", "is_kept"), [(511, False), (512, True)])
def test_space_is_kept_back_where_as_much_stays_free(
    tmp_path: Path, disk: SimpleNamespace, kib: int, is_kept: bool
) -> None:
    """A disk that is nearly full isn't filled by it."""
    disk.f_bavail = kib
    assert Reserve(tmp_path).restore() is is_kept
    assert Reserve(tmp_path).exists() is is_kept


@pytest.mark.parametrize(("kib", "is_kept"), [(63, False), (64, True)])
def test_a_start_uses_the_space_only_on_a_full_disk(
    tmp_path: Path, disk: SimpleNamespace, kib: int, is_kept: bool
) -> None:
    """What a start writes is little."""
    reserve = Reserve(tmp_path)
    reserve.restore()
    disk.f_bavail = kib
    reserve.release_if_full()
    assert reserve.exists() is is_kept


def test_space_in_a_folder_that_can_not_be_changed_is_not_kept_back(tmp_path: Path) -> None:
    """That is no error: the worker says so in its status."""
    assert Reserve(tmp_path / "gone").restore() is False
    assert Reserve(tmp_path / "gone").release() is False
