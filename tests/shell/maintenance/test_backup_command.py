"""Backups and restores on the client's side: the file, and workers with unexpected answers."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import EnvironmentFolderError, TaskError, UsageError
from nfcli.models.protocol.jobs import Result, ResultStatus
from nfcli.models.tasks.backup import CHUNK_BYTES, encode_trailer
from nfcli.shell.maintenance.backup_command import RESTORED_NOTE, back_up, restore
from nfcli.shell.maintenance.backup_file import create_backup

ID = "0123456789abcdef" * 2
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
        return {"id": ID, "size": len(self.data), "sha256": hashlib.sha256(self.data).hexdigest(), "tokens": 3}

    def backup_read(self, id: str, offset: int) -> str:  # noqa: A002  the task's own name for it
        """Return a chunk."""
        assert id == ID
        return base64.b64encode(self.data[offset : offset + CHUNK_BYTES]).decode()

    def backup_end(self, id: str) -> bool:  # noqa: A002
        """End the backup."""
        return id == ID

    def restore_begin(self, size: int, sha256: str) -> dict[str, object]:
        """Announce an upload."""
        assert (size, sha256) == (len(self.data), hashlib.sha256(self.data).hexdigest())
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
    assert file.read_bytes() == worker.data + encode_trailer(hashlib.sha256(worker.data).hexdigest())
    assert [path.name for path in file.parent.iterdir()] == ["b.db"]
    assert json.loads(capsys.readouterr().out) == {"w1": {"tokens": 3, "file": str(file)}}


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


@pytest.mark.parametrize(
    ("task", "answer", "error"),
    [
        ("backup_begin", Result(failed=True, errors=["no\x1b[1m", "never"]), r"^w1: no\\x1b\[1m; never$"),
        ("backup_begin", Result(failed=True), r"^w1: failed without a reason, status None$"),
        ("backup_begin", None, FORM),
        (
            "backup_begin",
            {"id": ID, "size": 10**12, "sha256": "0" * 64, "tokens": 1},
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
