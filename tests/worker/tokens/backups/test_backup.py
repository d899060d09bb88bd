"""Backups and checks of a token store that is in use."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.errors import (
    TaskError,
    TokenStoreDamagedError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.backup import read_backup
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]

PAGE = 4096
JOIN_SECONDS = 5


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


@pytest.fixture
def store(open_store: OpenStore, clock: SimpleNamespace) -> TokenStore:
    """Open a store with a hundred tokens of four users."""
    store = open_store()
    store.replace(
        (
            BearerTokenRecord(f"token-{n}", f"user-{n % 4}", clock.now + n, None if n % 3 else clock.now + 1000 + n)
            for n in range(100)
        ),
        before_commit=None,
    )
    return store


# Made


def test_a_backup_holds_what_the_store_holds(store: TokenStore, tmp_path: Path, clock: SimpleNamespace) -> None:
    """While the store is in use; later changes aren't in it, and it can be restored."""
    delete_tokens(store, username="user-3")
    before = contents(store)
    assert store.backup(tmp_path / "backup.db") == len(before) == 75
    store_token(store, "mallory", "later", None)
    delete_tokens(store, username="user-1")
    clock.now += 1
    loaded = read_backup(tmp_path / "backup.db")
    assert (loaded.pickled, loaded.invalid, loaded.latest) == (0, 0, clock.now - 1)
    store.replace(loaded.records, before_commit=None)
    assert contents(store) == before


def test_a_backup_is_one_private_complete_file(store: TokenStore, tmp_path: Path) -> None:
    """It needs no companion file such as a write-ahead log, and has mode 0600 whatever the umask."""
    folder = tmp_path / "there"
    folder.mkdir()
    umask = os.umask(0)
    try:
        store.backup(folder / "backup.db")
    finally:
        os.umask(umask)
    assert [(path.name, oct(path.stat().st_mode)) for path in folder.iterdir()] == [("backup.db", "0o100600")]
    with closing(sqlite3.connect(folder / "backup.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_can_take_the_place_of_the_database(store: TokenStore, tmp_path: Path, clock: SimpleNamespace) -> None:
    """With the worker stopped, and without warnings."""
    folder = tmp_path / "elsewhere"
    folder.mkdir(mode=0o700)
    store.backup(folder / "cache.db")
    with TokenStore(folder, clock=lambda: clock.now) as other:
        assert contents(other) == contents(store)


def test_a_deleted_token_is_in_no_backup(store: TokenStore, tmp_path: Path) -> None:
    """Free pages don't contain it either."""
    store_token(store, "alice", "gone-gone-gone-gone", None)
    delete_tokens(store, token="gone-gone-gone-gone")
    store.backup(tmp_path / "backup.db")
    data = (tmp_path / "backup.db").read_bytes()
    assert (b"token-99" in data, b"gone-gone-gone-gone" in data) == (True, False)


def test_backups_during_writes_are_consistent(store: TokenStore, tmp_path: Path) -> None:
    """Two tokens are stored and deleted in turn: a backup has the first whenever it has the second."""
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            store_token(store, "alice", "first", None)
            store_token(store, "alice", "second", None)
            delete_tokens(store, token="second")
            delete_tokens(store, token="first")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = []
        for number in range(10):
            store.backup(tmp_path / f"{number}.db")
            tokens = {record.token for record in read_backup(tmp_path / f"{number}.db").records}
            found.append((len(tokens) - len(tokens & {"first", "second"}), "second" not in tokens or "first" in tokens))
    finally:
        done.set()
        writer.join()
    assert found == [(100, True)] * 10


def test_an_existing_file_is_not_overwritten(store: TokenStore, tmp_path: Path) -> None:
    """A dangling link counts as one."""
    (tmp_path / "backup.db").write_text("precious")
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere")
    for name in ("backup.db", "link.db"):
        file = tmp_path / name
        with pytest.raises(TaskError) as refused:
            store.backup(file)
        assert str(refused.value) == f"{file} exists already, nothing changed: name another file for the backup"
    assert (tmp_path / "backup.db").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_missing_folder_is_reported(store: TokenStore, tmp_path: Path) -> None:
    """The message names the file."""
    file = tmp_path / "no" / "backup.db"
    with pytest.raises(TokenStoreReadOnlyError) as refused:
        store.backup(file)
    assert str(refused.value) == (
        f"the backup {file} can't be accessed (No such file or directory), nothing changed: "
        "check the folder's owner, mode and mount"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB; only root may."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_behind(store: TokenStore, small_disk: Path) -> None:
    """Half a backup could be mistaken for one; the store remains usable."""
    store.replace(
        (BearerTokenRecord(f"{number}-{'x' * 900}", "alice", 0.0, None) for number in range(100)), before_commit=None
    )
    with pytest.raises(TokenStoreFullError) as refused:
        store.backup(small_disk / "backup.db")
    assert str(small_disk) in str(refused.value)
    assert list(small_disk.iterdir()) == []
    assert delete_tokens(store, username="alice") == 100


def test_a_disk_that_fails_leaves_nothing_behind(store: TokenStore, tmp_path: Path) -> None:
    """The system refuses a write in the middle."""
    file = tmp_path / "backup.db"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE, limits[1]))
    try:
        with pytest.raises(TokenStoreError) as refused:
            store.backup(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(refused.value) == f"the backup {file} failed with disk I/O error, nothing changed: check that disk"
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
def test_a_backup_that_fails_leaves_no_file_of_sqlite(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """They contain tokens, and next to another backup of the same name SQLite would read them."""

    def fail(path: Path, **_: object) -> None:
        path.with_name(path.name + ending).touch()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", fail)
        with pytest.raises(TokenStoreError, match="failed with disk I/O error"):
            store.backup(tmp_path / "backup.db")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_a_damaged_database_gives_no_backup(
    store: TokenStore, open_store: OpenStore, tokens_folder: Path, tmp_path: Path
) -> None:
    """A backup that can't be restored is useless; the message names the database."""
    store.close()
    store = open_store()
    spoil_an_index(tokens_folder / "cache.db")
    with pytest.raises(TokenStoreDamagedError) as refused:
        store.backup(tmp_path / "backup.db")
    assert str(refused.value).startswith(f"{tokens_folder / 'cache.db'} is damaged or no token database, ")
    assert not (tmp_path / "backup.db").exists()


def spoil_an_index(file: Path) -> None:
    """Flip a byte that loading the tokens doesn't read."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_tag_rowid'")
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(b"\xa5")


# Checked


def test_an_intact_database_passes_its_check(store: TokenStore) -> None:
    """While it is written to as well."""
    store.check()
    store_token(store, "alice", "another", None)
    store.check()


def test_a_check_finds_damage_in_pages_that_were_not_read(
    store: TokenStore, open_store: OpenStore, tokens_folder: Path
) -> None:
    """On disk, even if the pages in memory are intact."""
    store.close()
    store = open_store()
    store.check()
    spoil_an_index(tokens_folder / "cache.db")
    with pytest.raises(TokenStoreDamagedError, match=r"cache\.db is damaged or no token database"):
        store.check()


def test_a_check_finds_a_database_that_was_moved(store: TokenStore, tokens_folder: Path) -> None:
    """It is intact, but not where the next start reads it."""
    (tokens_folder / "cache.db").rename(tokens_folder / "moved.db")
    with pytest.raises(TokenStoreDamagedError, match="was moved or replaced"):
        store.check()


@pytest.mark.parametrize("step", ["check_integrity", "finish_backup"])
def test_a_token_is_deleted_while_a_database_or_its_copy_is_checked(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """That takes seconds for a large one, and doesn't occupy the store's own thread."""
    deleted: list[int] = []
    ended = threading.Event()

    def delete_meanwhile(*_: object) -> None:
        other = threading.Thread(target=lambda: deleted.append(delete_tokens(store, token="token-1")), daemon=True)
        other.start()
        other.join(JOIN_SECONDS)

    monkeypatch.setattr(store.database, step, delete_meanwhile)
    run = store.check if step == "check_integrity" else lambda: store.backup(tmp_path / "backup.db")
    worker = threading.Thread(target=lambda: (run(), ended.set()), daemon=True)
    worker.start()
    assert ended.wait(2 * JOIN_SECONDS)
    assert deleted == [1]


def test_a_deletion_does_not_read_the_entire_table(store: TokenStore) -> None:
    """Its row, and the one of its tombstone, are found by an index."""
    statements: list[str] = []
    store.run(lambda: store.database.cache.connection.set_trace_callback(statements.append))
    delete_tokens(store, token="token-1")
    store.run(lambda: store.database.cache.connection.set_trace_callback(None))
    assert any(statement.startswith("DELETE") for statement in statements)
    assert [statement for statement in statements if "NOT INDEXED" in statement] == []
