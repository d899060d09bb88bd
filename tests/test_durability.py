"""What is said to be on disk has been synced: the file's content, and its name in the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nfcli.models.environment.private_files import write_private
from nfcli.shell.maintenance.backup_file import create_backup
from nfcli.worker.audit.file import ChainedFile
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import store_token


@dataclass
class Disk:
    """What Python has synced (SQLite syncs its own files): files by content, and the names in folders."""

    contents: list[Path] = field(default_factory=list)
    names: list[Path] = field(default_factory=list)

    def note(self, descriptor: int) -> None:
        """Note that a file or folder has been synced."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.names += path.iterdir()
        else:
            self.contents.append(path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return what is synced during the test."""
    disk = Disk()

    def follow(name: str) -> None:
        real: Callable[[int], None] = getattr(os, name)

        def sync(descriptor: int) -> None:
            real(descriptor)
            disk.note(descriptor)

        monkeypatch.setattr(os, name, sync)

    follow("fsync")
    follow("fdatasync")
    return disk


def test_a_private_file_is_replaced_durably(tmp_path: Path, disk: Disk) -> None:
    """Under a temporary name first."""
    write_private(tmp_path / "file", b"x")
    assert [path.parent for path in disk.contents] == [tmp_path]
    assert disk.names == [tmp_path / "file"]


def test_a_new_token_database_is_found_after_a_crash(tmp_path: Path, disk: Disk) -> None:
    """Its folder's name is in the folder above."""
    with TokenStore(tmp_path / "tokens"):
        assert tmp_path / "tokens" in disk.names


def test_a_copy_of_the_token_database_is_found_after_a_crash(tmp_path: Path, disk: Disk) -> None:
    """As soon as the call returns."""
    with TokenStore(tmp_path / "tokens") as store:
        store_token(store, "ann", "t1", None)
        store.backup(tmp_path / "copy.db")
    assert tmp_path / "copy.db" in disk.names


def test_a_backup_gets_its_name_durably(tmp_path: Path, disk: Disk) -> None:
    """It is written under another name."""
    with create_backup(tmp_path / "backup") as (stream, finish):
        stream.write(b"x")
        finish()
    assert len(disk.contents) == 1
    assert disk.names == [tmp_path / "backup"]


def test_the_audit_trail_is_on_disk_line_by_line(tmp_path: Path, disk: Disk) -> None:
    """Its name from the start, each line when it is added."""
    file = tmp_path / "audit.jsonl"
    trail = ChainedFile(file)
    assert file in disk.names
    assert file not in disk.contents
    trail.append({"operation": "create"})
    trail.close()
    assert file in disk.contents


def test_the_last_lines_of_a_killed_process_are_synced(tmp_path: Path, disk: Disk) -> None:
    """They are read back from the cache of the system, and may not be on disk; their head isn't either."""
    file = tmp_path / "audit.jsonl"
    trail = ChainedFile(file)
    head_file = next(path for path in tmp_path.iterdir() if path != file)
    head = head_file.read_bytes()
    trail.append({"operation": "create"})
    trail.close()
    head_file.write_bytes(head)
    disk.contents.clear()
    ChainedFile(file).close()
    assert file in disk.contents
