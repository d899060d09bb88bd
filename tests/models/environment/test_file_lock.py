"""Locks on files and folders: who excludes whom, and until when."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.environment.file_lock import FileLock, lock_folder
from nfcli.models.errors import EnvironmentFolderError

SECONDS = 10.0
PAUSE_SECONDS = 0.1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a lock file may be created."""
    return tmp_path / "lock"


@pytest.mark.parametrize(
    ("first", "second", "is_available"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_only_shared_locks_coexist(path: Path, first: bool, second: bool, is_available: bool) -> None:
    """An exclusive lock excludes every other one, a shared lock an exclusive one."""
    with FileLock(path) as holder, FileLock(path) as other:
        assert holder.try_acquire(shared=first)
        assert other.try_acquire(shared=second) is is_available


def test_a_refused_conversion_releases_the_shared_lock(path: Path) -> None:
    """Of two holders of a shared lock that both want it exclusively, the second one gets it."""
    with FileLock(path) as first, FileLock(path) as second:
        assert first.try_acquire(shared=True)
        assert second.try_acquire(shared=True)
        assert not first.try_acquire()
        assert second.try_acquire()


def test_a_lock_that_is_held_is_awaited(path: Path) -> None:
    """`acquire` returns once the holder has closed the file."""
    acquired = threading.Event()

    def wait() -> None:
        with FileLock(path) as lock:
            lock.acquire()
            acquired.set()

    with FileLock(path) as holder:
        assert holder.try_acquire(shared=True)
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(PAUSE_SECONDS)
        assert not acquired.is_set()
    waiter.join(SECONDS)
    assert acquired.is_set()


def test_a_killed_process_releases_its_lock(path: Path) -> None:
    """The kernel does it; the file stays."""
    code = (
        "import pathlib, sys; from nfcli.models.environment.file_lock import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1])); print(lock.try_acquire(), flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with FileLock(path) as lock:
            assert not lock.try_acquire()
            process.kill()
            process.wait(SECONDS)
            assert lock.try_acquire()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.replace(path.with_name("other"))])
def test_a_lock_on_a_file_that_left_its_path_is_noticed(path: Path, change: Callable[[Path], object]) -> None:
    """Others would lock the file that is created there next."""
    with FileLock(path) as lock:
        assert lock.is_at_path()
        change(path)
        assert not lock.is_at_path()
        path.touch()
        assert not lock.is_at_path()


@pytest.mark.usefixtures("umask")
def test_a_private_lock_file_is_0600_and_has_to_be(path: Path) -> None:
    """Whoever can open the file can hold the lock."""
    FileLock(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(EnvironmentFolderError):
        FileLock(path)
    FileLock(path, "rb", is_private=False).close()


def test_a_folder_is_locked_for_the_length_of_a_block(tmp_path: Path) -> None:
    """Two threads that create files in it do so one after the other."""
    entered = threading.Event()

    def enter() -> None:
        with lock_folder(tmp_path):
            entered.set()

    with lock_folder(tmp_path):
        waiter = threading.Thread(target=enter)
        waiter.start()
        waiter.join(PAUSE_SECONDS)
        assert not entered.is_set()
    waiter.join(SECONDS)
    assert entered.is_set()
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_folder_is_not_locked(tmp_path: Path) -> None:
    """The files would be created elsewhere."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory"), lock_folder(link):
        pass
