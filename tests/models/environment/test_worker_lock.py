"""Ownership of a worker's name: one process at a time, undisturbed by processes that ask who it is."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.private_files import open_private, write_private
from nfcli.models.environment.worker_lock import LockOwner, WorkerLock, has_owner, read_owner
from nfcli.models.errors import EnvironmentFolderError, WorkerStartError

HOLDER = (
    "import pathlib, sys; from nfcli.models.environment.worker_lock import WorkerLock\n"
    "lock = WorkerLock.acquire(pathlib.Path(sys.argv[1]))\n"
    "lock.publish(ready=True, endpoint='ipc://e', url='http://u')\n"
    "print('up', flush=True); sys.stdin.readline()"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a lock file may be created; its name has a dot, as worker names may."""
    return tmp_path / "w.1.lock"


@contextmanager
def owner_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns the lock and has published its complete state."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def dead_pid() -> int:
    """Return the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_owner_is_known_from_the_start(path: Path) -> None:
    """Before a worker is ready its lock already has an owner."""
    lock = WorkerLock.acquire(path)
    assert read_owner(path) == LockOwner(pid=os.getpid(), ready=False, endpoint=None, url=None)
    lock.release()


def test_owner_publishes_more_as_it_gets_ready(path: Path) -> None:
    """What was published before is kept; anything that JSON can hold may be added."""
    lock = WorkerLock.acquire(path)
    lock.publish(endpoint="ipc://e", note=[1])
    lock.publish(ready=True, url="http://u")
    assert read_owner(path) == LockOwner(pid=os.getpid(), ready=True, endpoint="ipc://e", url="http://u")
    state = json.loads(path.with_name("w.1.json").read_bytes())
    assert state.pop("started") <= time.time()
    assert state == {"pid": os.getpid(), "ready": True, "endpoint": "ipc://e", "url": "http://u", "note": [1]}
    lock.release()


@pytest.mark.usefixtures("umask")
def test_lock_files_are_private(path: Path, modes: Callable[[Path], dict[str, str]]) -> None:
    """0600 whatever the umask."""
    lock = WorkerLock.acquire(path)
    assert modes(path.parent) == {"w.1.json": "0600", "w.1.lock": "0600"}
    lock.release()


def test_released_name_is_free(path: Path) -> None:
    """It has no owner and no state, and can be acquired; releasing twice is harmless."""
    lock = WorkerLock.acquire(path)
    lock.release()
    lock.release()
    assert read_owner(path) is None
    assert [file.name for file in path.parent.iterdir()] == ["w.1.lock"]
    WorkerLock.acquire(path).release()


@pytest.mark.parametrize("relative", ["missing.lock", "missing/w.lock"])
def test_name_that_was_never_acquired_has_no_owner(tmp_path: Path, relative: str) -> None:
    """Asking creates no file."""
    assert read_owner(tmp_path / relative) is None
    assert not list(tmp_path.iterdir())


def test_second_worker_is_refused_with_the_owners_pid(path: Path) -> None:
    """The first one isn't disturbed: it still owns the name, with the same state."""
    with owner_process(path) as process:
        expected = LockOwner(pid=process.pid, ready=True, endpoint="ipc://e", url="http://u")
        with pytest.raises(WorkerStartError) as caught:
            WorkerLock.acquire(path)
        assert str(caught.value) == (
            f"worker w.1 is already running in this environment, owned by process {process.pid}: "
            "stop that process first"
        )
        assert read_owner(path) == expected


def test_killed_owner_leaves_the_name_free(path: Path) -> None:
    """The kernel releases the lock; the dead owner's state is ignored."""
    with owner_process(path) as process:
        process.kill()
        process.wait(30)
        assert path.with_name("w.1.json").exists()
        assert read_owner(path) is None
        lock = WorkerLock.acquire(path)
        assert read_owner(path) == LockOwner(pid=os.getpid())
        lock.release()


def test_lock_can_be_acquired_while_others_keep_asking(path: Path) -> None:
    """A probe holds the lock for an instant; that must not make a worker's start fail."""
    done = threading.Event()

    def ask() -> set[LockOwner | None]:
        answers = set()
        while not done.is_set():
            answers.add(read_owner(path))
        return answers

    open_private(path, "x").close()
    with ThreadPoolExecutor(3) as pool:
        askers = [pool.submit(ask) for _ in range(3)]
        try:
            for _ in range(20):
                WorkerLock.acquire(path, retry_seconds=60).release()
        finally:
            done.set()
        answers = set().union(*(asker.result() for asker in askers))
    assert answers <= {None, LockOwner(pid=os.getpid()), LockOwner(pid=None)}


def test_probe_at_the_wrong_moment_only_delays_a_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start waits for a probe to end; here it ends during the first pause."""
    open_private(path, "x").close()
    probe = open_private(path, "rb")
    fcntl.flock(probe, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _seconds: probe.close())
    lock = WorkerLock.acquire(path)
    assert probe.closed
    lock.release()


def test_state_is_never_seen_half_written(path: Path) -> None:
    """Readers see one complete state or another while the owner replaces it."""
    lock = WorkerLock.acquire(path)
    lock.publish(ready=True, endpoint="", url="")
    done = threading.Event()

    def read() -> list[tuple[LockOwner | None, Any]]:
        seen = []
        while not done.is_set():
            seen.append((read_owner(path), json.loads(path.with_name("w.1.json").read_bytes())))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number in range(200):
                text = str(number) * (number * 50)
                lock.publish(endpoint=text, url=text)
        finally:
            done.set()
        seen = [pair for reader in readers for pair in reader.result()]
    lock.release()
    assert seen
    for owner, content in seen:
        assert owner is not None
        assert owner == LockOwner(pid=os.getpid(), ready=True, endpoint=owner.url, url=owner.url)
        assert content["endpoint"] == content["url"]


def test_probes_do_not_take_each_other_for_an_owner(path: Path) -> None:
    """Two shells may ask at the same moment."""
    with open_private(path, "w+") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        assert read_owner(path) is None


def test_state_of_a_dead_owner_is_not_taken_for_the_new_ones(
    path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a new owner has published its state, the old one is still there: the reader waits."""
    write_private(path.with_name("w.1.json"), content(pid=dead_pid))
    stream = locked(path)
    monkeypatch.setattr(
        time, "sleep", lambda _seconds: write_private(path.with_name("w.1.json"), content(pid=os.getpid()))
    )
    assert read_owner(path) == LockOwner(pid=os.getpid(), ready=True, endpoint="e", url="u")
    stream.close()


def test_owner_whose_pid_is_not_visible_is_believed(path: Path, dead_pid: int) -> None:
    """A worker in a container that shares the folder has a pid of another namespace."""
    write_private(path.with_name("w.1.json"), content(pid=dead_pid))
    stream = locked(path)
    assert read_owner(path) == LockOwner(pid=dead_pid, ready=True, endpoint="e", url="u")
    stream.close()


def test_owner_of_another_user_counts_as_alive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to signal it, so it exists."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    stream = locked(path)
    write_private(path.with_name("w.1.json"), content(pid=os.getpid()))
    monkeypatch.setattr(os, "kill", refuse)
    assert read_owner(path) == LockOwner(pid=os.getpid(), ready=True, endpoint="e", url="u")
    stream.close()


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{", b"{}", b'{"pid": "x", "ready": 1, "endpoint": 1, "url": 1}']
)
def test_owner_without_a_valid_state_is_still_an_owner(path: Path, content: bytes | None) -> None:
    """The lock decides; the state only adds to it."""
    stream = locked(path)
    if content is not None:
        write_private(path.with_name("w.1.json"), content)
    assert read_owner(path) == LockOwner(pid=None)
    with pytest.raises(WorkerStartError) as caught:
        WorkerLock.acquire(path)
    assert "owned by another process" in str(caught.value)
    stream.close()


def test_lock_file_removed_at_the_wrong_moment_is_created_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that is no longer at its path would exclude no one."""
    real = fcntl.flock
    removed = []

    def remove_first(stream: Any, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(path)
        real(stream, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = WorkerLock.acquire(path)
    assert read_owner(path) == LockOwner(pid=os.getpid())
    lock.release()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    path = tmp_path / "missing" / "w.lock"
    with pytest.raises(WorkerStartError) as caught:
        WorkerLock.acquire(path)
    assert str(caught.value) == f"{path} can't be written: No such file or directory"


def test_file_system_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two owners would damage the token database."""

    def refuse(_stream: Any, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WorkerStartError) as caught:
        WorkerLock.acquire(path)
    assert str(caught.value) == f"{path} can't be written: No locks available"


def test_owner_that_cannot_publish_its_state_releases_the_name(path: Path) -> None:
    """A worker that clients couldn't find must not keep the name."""
    path.with_name("w.1.json").mkdir()
    with pytest.raises(WorkerStartError, match=r"w\.1\.lock can't be written: "):
        WorkerLock.acquire(path)
    path.with_name("w.1.json").rmdir()
    WorkerLock.acquire(path).release()


@pytest.mark.parametrize("call", [WorkerLock.acquire, read_owner])
def test_lock_file_that_others_can_open_is_refused(path: Path, call: Callable[[Path], object]) -> None:
    """Whoever can open the file can hold the lock."""
    path.touch()
    path.chmod(0o644)
    with pytest.raises(EnvironmentFolderError) as caught:
        call(path)
    assert str(caught.value) == f"{path} has mode 0644 and is open to other users: run chmod 600 {path}"


def test_lock_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFolderError) as caught:
        read_owner(tmp_path / "file" / "w.lock")
    assert str(caught.value) == f"{tmp_path / 'file' / 'w.lock'} can't be read: Not a directory"


def content(*, pid: int) -> bytes:
    """Return a state file's content."""
    return json.dumps({"pid": pid, "ready": True, "endpoint": "e", "url": "u"}).encode()


def locked(path: Path) -> Any:
    """Hold the lock without a published state, as an owner does for its first moment."""
    stream = open_private(path, "ab")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def test_owner_of_a_lock_file_that_others_can_open_is_found(tmp_path: Path) -> None:
    """`has_owner` must not take such a worker for one that has ended; it creates no file."""
    file = tmp_path / "w.lock"
    assert not has_owner(file)
    assert not file.exists()
    lock = WorkerLock.acquire(file)
    file.chmod(0o644)
    assert has_owner(file)
    lock.release()
    assert not has_owner(file)
