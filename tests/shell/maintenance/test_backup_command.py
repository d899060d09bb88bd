"""Backups and restores on the client's side: the file, and workers with unexpected answers."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.private_files import write_private
from nfcli.models.errors import EnvironmentFolderError, TaskError, UsageError
from nfcli.models.protocol.jobs import Result, ResultStatus
from nfcli.models.tasks.backup import CHUNK_BYTES, BackupSeal, encode_trailer
from nfcli.shell.maintenance.backup_command import RESTORED_NOTE, back_up, restore
from nfcli.shell.maintenance.backup_file import create_backup

ID = "0123456789abcdef" * 2
SEAL = BackupSeal(worker="w1", time="2026-05-31T10:00:00+00:00", key="0123abcd", seal="5e" * 32)
FORM = "^w1: the result of backup_begin has not the form that this nfcli expects: use the same version on both sides$"
MISMATCH = "the download doesn't match the worker's size or checksum, no file was written: back up again"


def database() -> bytes:
    """Return a database of more than one chunk."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE Cache(key)")
        connection.execute("INSERT INTO Cache VALUES(zeroblob(?))", (CHUNK_BYTES,))
        connection.commit()
        return connection.serialize()


class Worker:
    """A client of one worker; `answers` replaces the worker's answers by task, `tasks` are those it was sent."""

    def __init__(self) -> None:
        self.data = database()
        self.names = ["w1"]
        self.missing: dict[str, str] = {}
        self.answers: dict[str, Any] = {}
        self.tasks: list[str] = []
        self.uploaded = bytearray()
        self.announced: tuple[object, bool] = None, False

    def worker_names(self, service: str) -> list[str]:
        """Return the worker's name."""
        assert service == "fastmcp"
        return self.names

    def missing_workers(self) -> dict[str, str]:
        """Return the workers that are expected and away."""
        return self.missing

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a task."""
        assert (service, options["workers"]) == ("fastmcp", ["w1"])
        self.tasks.append(task)
        answer = self.answers.get(task, getattr(self, task))
        value = answer(**options["kwargs"]) if callable(answer) else answer
        result = value if isinstance(value, Result) else Result(result=value)
        return {"w1": result.model_dump(mode="json")}

    def backup_begin(self) -> dict[str, object]:
        """Take a snapshot."""
        sha256 = hashlib.sha256(self.data).hexdigest()
        return {"id": ID, "size": len(self.data), "sha256": sha256, "tokens": 3, "seal": SEAL.model_dump()}

    def backup_read(self, id: str, offset: int) -> str:  # noqa: A002  the task's own name for it
        """Return a chunk."""
        assert id == ID
        return base64.b64encode(self.data[offset : offset + CHUNK_BYTES]).decode()

    def backup_end(self, id: str) -> bool:  # noqa: A002
        """End the backup."""
        return id == ID

    def restore_begin(self, size: int, sha256: str, seal: object, unverified: bool) -> dict[str, object]:
        """Announce an upload; `announced` is the seal, and whether it may be wrong."""
        assert (size, sha256) == (len(self.data), hashlib.sha256(self.data).hexdigest())
        self.announced = seal, unverified
        return {"id": ID}

    def restore_write(self, id: str, offset: int, data: str) -> bool:  # noqa: A002
        """Receive a chunk."""
        assert (id, offset) == (ID, len(self.uploaded))
        self.uploaded += base64.b64decode(data)
        return True

    def restore_commit(self, id: str) -> dict[str, int]:  # noqa: A002
        """Replace the tokens."""
        assert (id, self.uploaded) == (ID, self.data)
        return {"restored": 3, "removed": 2, "expired": 1}


@pytest.fixture
def worker() -> Any:
    """Provide a worker."""
    return Worker()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a backup may be written."""
    return tmp_path / "b.db"


def test_a_backup_is_the_database_and_its_trailer(worker: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is downloaded in chunks; the file gets its name at the end."""
    back_up(worker, file, None)
    assert worker.tasks == ["backup_begin", "backup_read", "backup_read", "backup_end"]
    assert file.read_bytes() == worker.data + encode_trailer(hashlib.sha256(worker.data).hexdigest(), SEAL)
    assert [path.name for path in file.parent.iterdir()] == ["b.db"]
    assert json.loads(capsys.readouterr().out) == {"w1": {"tokens": 3, "file": str(file)}}


def test_a_restore_of_no_token_brings_no_deleted_one_back(
    worker: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So there is nothing to delete again; otherwise the note says how."""
    back_up(worker, file, "w1")
    capsys.readouterr()
    for restored, note in [(0, ""), (1, f"{RESTORED_NOTE}\n")]:
        worker.uploaded.clear()
        worker.answers["restore_commit"] = Result(result={"restored": restored, "removed": 2, "expired": 1})
        restore(worker, file, "w1")
        assert capsys.readouterr().err == note
    assert "fastmcp tokens sync" in RESTORED_NOTE


def test_a_restore_sends_the_database_only(worker: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In chunks; the worker's notes are shown, and what a restore means."""
    back_up(worker, file, None)
    capsys.readouterr()
    worker.answers["restore_commit"] = Result(
        result={"restored": 3, "removed": 2, "expired": 1}, messages=["one row was\nno token"]
    )
    restore(worker, file, "w1")
    assert worker.tasks[4:] == ["restore_begin", "restore_write", "restore_write", "restore_commit"]
    output = capsys.readouterr()
    assert json.loads(output.out) == {"w1": {"restored": 3, "removed": 2, "expired": 1}}
    assert output.err == f"w1: one row was\\nno token\n{RESTORED_NOTE}\n"
    assert worker.announced == (SEAL.model_dump(), False)


def test_a_backup_of_an_earlier_version_is_announced_without_a_seal(worker: Any, file: Path) -> None:
    """The worker decides, and gets what the user accepts."""
    old = f"\nnfcli backup 1 sha256 {hashlib.sha256(worker.data).hexdigest()}\n".encode()
    write_private(file, worker.data + old)
    for unverified in (False, True):
        worker.uploaded.clear()
        restore(worker, file, None, unverified=unverified)
        assert worker.announced == (None, unverified)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Provide a pipe: the descriptor to read from, and the one to write to."""
    ends = os.pipe()
    yield ends
    for descriptor in ends:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_backup_goes_through_pipes_and_back(
    worker: Any, pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """By paths of descriptors, as process substitution gives them; nothing of it is in a file."""
    read, write = pipe
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(read_all, read)
        back_up(worker, Path(f"/dev/fd/{write}"), None)
        os.close(write)
        content = received.result(10)
    assert content == worker.data + encode_trailer(hashlib.sha256(worker.data).hexdigest(), SEAL)
    assert json.loads(capsys.readouterr().out) == {"w1": {"tokens": 3, "file": f"/dev/fd/{write}"}}
    again, put = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(again):
        pool.submit(write_all, put, content)
        restore(worker, Path(f"/proc/self/fd/{again}"), None)
    assert worker.uploaded == worker.data


def read_all(descriptor: int) -> bytes:
    """Read a descriptor to its end."""
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        return stream.read()


def write_all(descriptor: int, content: bytes) -> None:
    """Write into a descriptor and close it."""
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def test_a_pipe_whose_reader_has_ended_is_reported(worker: Any, pipe: tuple[int, int]) -> None:
    """What it has got is not a backup."""
    read, write = pipe
    os.close(read)
    with pytest.raises(
        EnvironmentFolderError, match=rf"^file descriptor {write} can't be written: Broken pipe: .* discard"
    ):
        back_up(worker, Path(f"/dev/fd/{write}"), None)


def test_a_stream_that_ends_early_is_no_backup(worker: Any) -> None:
    """It is read and verified to its end before anything is sent."""
    content = worker.data + encode_trailer(hashlib.sha256(worker.data).hexdigest(), SEAL)
    for cut, error in (
        (b"", "is not a backup"),
        (content[:-1], "was truncated or altered"),
        (content[:9000], "was trunc"),
    ):
        read, write = os.pipe()
        with ThreadPoolExecutor(1) as pool, os.fdopen(read):
            pool.submit(write_all, write, cut)
            with pytest.raises(TaskError, match=rf"^file descriptor {read} {error}"):
                restore(worker, Path(f"/dev/fd/{read}"), None)
    assert worker.tasks == []


def test_a_terminal_neither_shows_a_backup_nor_is_one(worker: Any) -> None:
    """Tokens would stand on the screen; nothing is sent to the worker."""
    master, terminal = os.openpty()
    with os.fdopen(master), os.fdopen(terminal):
        for run in (back_up, restore):
            with pytest.raises(UsageError, match=rf"^file descriptor {terminal} is a terminal: send "):
                run(worker, Path(f"/dev/fd/{terminal}"), None)
    assert worker.tasks == []


def test_a_redirection_into_a_file_of_others_is_warned_of(
    worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell that made it used its umask."""
    file = tmp_path / "b.db"
    for mode, warnings in ((0o644, 1), (0o600, 0)):
        with file.open("wb") as stream:
            file.chmod(mode)
            back_up(worker, Path(f"/dev/fd/{stream.fileno()}"), None)
        assert capsys.readouterr().err.count("is a file that is open to other users: run chmod 600") == warnings


@pytest.mark.parametrize(
    ("task", "answer", "error"),
    [
        ("backup_begin", Result(failed=True, errors=["no\x1b[1m", "never"]), r"^w1: no\\x1b\[1m; never$"),
        ("backup_begin", Result(failed=True), r"^w1: failed without a reason, status None$"),
        ("backup_begin", None, FORM),
        (
            "backup_begin",
            {"id": ID, "size": 10**12, "sha256": "0" * 64, "tokens": 1, "seal": SEAL.model_dump()},
            FORM,
        ),
        ("backup_read", "", MISMATCH),
        ("backup_read", "A" * 8, MISMATCH),
        ("backup_read", "?", MISMATCH),
        ("backup_read", 7, MISMATCH),
        ("backup_read", Result(failed=True, errors=["gone"]), r"^w1: gone$"),
    ],
)
def test_a_backup_that_fails_leaves_no_file(worker: Any, file: Path, task: str, answer: object, error: str) -> None:
    """The worker removes its snapshot, if it has made one."""
    worker.answers[task] = answer
    with pytest.raises(TaskError, match=error):
        back_up(worker, file, None)
    assert list(file.parent.iterdir()) == []
    assert ("backup_end" in worker.tasks) is (task == "backup_read")


def test_an_interrupted_backup_leaves_nothing_on_either_side(worker: Any, file: Path) -> None:
    """Also if that last message to the worker fails."""

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    worker.answers["backup_read"] = interrupt
    worker.answers["backup_end"] = Result(failed=True, errors=["gone"])
    with pytest.raises(KeyboardInterrupt):
        back_up(worker, file, None)
    assert worker.tasks == ["backup_begin", "backup_read", "backup_end"]
    assert list(file.parent.iterdir()) == []


def test_a_restore_without_an_answer_is_reported_as_unknown(worker: Any, file: Path) -> None:
    """It is the only failure that may have changed the tokens."""
    back_up(worker, file, None)
    worker.answers["restore_commit"] = Result(failed=True, errors=["too late"], status=ResultStatus.TIMEOUT)
    with pytest.raises(TaskError, match=r"^w1: too late: whether the tokens were replaced is unknown, restore again$"):
        restore(worker, file, None)


def test_a_worker_must_be_named_if_there_are_several(worker: Any, file: Path) -> None:
    """Before anything is sent or written."""
    worker.names = ["w1", "w2"]
    for run in (back_up, restore):
        with pytest.raises(UsageError, match=r" w1, w2$"):
            run(worker, file, None)
    assert (worker.tasks, list(file.parent.iterdir())) == ([], [])


def refuse_links(patch: pytest.MonkeyPatch) -> None:
    """Behave as a file system without links."""

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(self), None, str(target))

    patch.setattr(Path, "hardlink_to", refuse)


@pytest.mark.parametrize("prepare", [lambda _: None, refuse_links], ids=["links", "no links"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    file: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """With and without hard links."""
    prepare(monkeypatch)

    def write(text: str | None) -> None:
        with create_backup(file) as (stream, finish):
            stream.write(b"tokens")
            if text is not None:
                file.write_text(text)
            finish()

    with pytest.raises(EnvironmentFolderError, match=r"b\.db exists already: nothing was overwritten, name another"):
        write("mine")
    assert {path.name: path.read_text() for path in file.parent.iterdir()} == {"b.db": "mine"}
    file.unlink()
    write(None)
    assert {path.name: path.read_text() for path in file.parent.iterdir()} == {"b.db": "tokens"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
