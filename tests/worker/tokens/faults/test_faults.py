"""A token store when other processes and the disk fail it: locks, full disks, damage. The disk is real."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.errors import (
    TokenStoreBusyError,
    TokenStoreDamagedError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)
from nfcli.worker.tokens import database as token_disk
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, pragma, store_token

OpenStore = Callable[[], TokenStore]

NOBODY = 65_534


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


# Locks


def test_a_lock_held_by_another_process_fails_every_write_in_time(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """Each write fails with one error and changes nothing; look-ups work, and afterwards writes do too."""
    store = open_store()
    store_token(store, "alice", "short", 10)
    store_token(store, "alice", "long", 1000)
    clock.now += 10
    before = contents(store)
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        for write in (
            lambda: store_token(store, "alice", "long", 5),
            lambda: store_token(store, "alice", "new", 5),
            lambda: delete_tokens(store, username="alice"),
            store.sweep,
        ):
            started = time.monotonic()
            with pytest.raises(TokenStoreBusyError, match=r"^token store busy, nothing changed: ") as refused:
                write()
            assert time.monotonic() - started < 6
            assert "\n" not in str(refused.value)
        assert contents(store) == before
        assert store.lookup("long") is not None
        other.execute("ROLLBACK")
    assert raw_database.keys() == ["bearer_token::short", "bearer_token::long"]
    assert store.sweep() == 1
    assert delete_tokens(store, username="alice") == 1


def test_opening_a_locked_database_fails_in_time(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """By itself, diskcache would retry for a minute."""
    open_store().close()
    threads = threading.active_count()
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(TokenStoreBusyError, match=r"^token store busy, nothing changed: "):
            open_store()
        assert time.monotonic() - started < 6
    assert threading.active_count() == threads
    open_store()


def test_the_time_to_wait_for_a_lock_is_five_seconds() -> None:
    """The other tests lower it; with it, an operation ends within six seconds."""
    assert token_disk.LOCK_TIMEOUT_SECONDS == 5


def test_a_lock_does_not_delay_look_ups(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """Token verification doesn't wait for a blocked write."""
    store = open_store()
    store_token(store, "alice", "secret-token", None)
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(delete_tokens, store, username="alice")
            answers = 0
            while not waiting.done():
                assert store.lookup("secret-token") is not None
                answers += 1
        with pytest.raises(TokenStoreBusyError):
            waiting.result()
    assert answers > 100


# Disks that are read-only, full or broken


@contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Drop root privileges, as owner of `folder`: file modes don't restrict root."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "mode", "is_new"), [("cache.db", 0o400, False), ("", 0o500, False), ("", 0o500, True)]
)
def test_a_read_only_database_is_refused_at_open(name: str, mode: int, *, is_new: bool) -> None:
    """A read-only file, or a folder in which the write-ahead log or the database can't be created."""
    with tempfile.TemporaryDirectory() as top:  # pytest's own folders keep other users out
        Path(top).chmod(0o755)
        folder = Path(top, "tokens")
        TokenStore(folder).close()
        if is_new:
            (folder / "cache.db").unlink()
        (folder / name).chmod(mode)
        with without_privileges(folder):
            with pytest.raises(TokenStoreReadOnlyError, match=r"can't be .*, nothing changed: ") as refused:
                TokenStore(folder)
            assert "\n" not in str(refused.value)
            folder.chmod(0o700)
            if not is_new:
                (folder / "cache.db").chmod(0o600)
            TokenStore(folder).close()


def test_a_database_that_turns_read_only_changes_nothing(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """The error is specific, and once the database is writable again, writes succeed."""
    store = open_store()
    store_token(store, "alice", "old", None)
    pragma(store, "query_only = 1")
    with pytest.raises(TokenStoreReadOnlyError, match=r"can't be written, nothing changed: "):
        store_token(store, "alice", "new", None)
    assert [record.token for record in store.records()] == ["old"]
    pragma(store, "query_only = 0")
    assert delete_tokens(store, token="old") == 1
    assert raw_database.keys() == []


def test_a_full_disk_changes_nothing(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """Stored tokens remain, deletion works, and with free space again so does storing."""
    store = open_store()
    pragma(store, "max_page_count = 24")
    count = 0

    def fill() -> None:
        nonlocal count
        while count < 1000:
            store_token(store, "alice", f"{count}-{'x' * 900}", None)
            count += 1

    with pytest.raises(TokenStoreFullError, match=r"^the disk of [^\n]*$"):
        fill()
    assert count > 0
    assert {record.token.split("-")[0] for record in store.records()} == {str(number) for number in range(count)}
    assert len(raw_database.keys()) == count
    assert delete_tokens(store, token=f"0-{'x' * 900}") == 1
    pragma(store, "max_page_count = 100000")
    store_token(store, "alice", "again", None)
    before = contents(store)
    store.close()
    assert contents(open_store()) == before


@pytest.fixture
def small_disk(tokens_folder: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB; only root may."""
    folder = tokens_folder
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # -l: also when a failed test left a file open


def test_a_token_can_be_revoked_on_a_full_disk(small_disk: Path, raw_database: RawDatabase) -> None:
    """Folding in the write-ahead log frees the space for it."""
    with TokenStore(small_disk) as store:
        store_token(store, "alice", "secret-token", None)
    with TokenStore(small_disk) as store:
        for _ in range(20):
            store_token(store, "alice", "secret-token", None)
        _fill(small_disk)
        assert delete_tokens(store, token="secret-token") == 1
        assert raw_database.keys() == []
        _fill(small_disk)
        with pytest.raises(TokenStoreFullError):
            store_token(store, "alice", "x" * 1000, None)
        assert contents(store) == []


def _fill(folder: Path) -> None:
    with (folder / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_a_commit_that_fails_leaves_no_transaction_open(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps the transaction open after some failures; the next write must not fail because of it."""
    store = open_store()
    cache = store.database.cache

    @contextmanager
    def transact(*, retry: bool) -> Iterator[None]:
        assert not retry
        cache.connection.execute("BEGIN IMMEDIATE")
        yield
        cache.connection.execute("COMMIT AND FAIL")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "transact", transact)
        with pytest.raises(TokenStoreError):
            store_token(store, "alice", "secret-token", None)
    assert contents(store) == []
    store_token(store, "alice", "secret-token", None)
    assert [record.token for record in store.records()] == ["secret-token"]


def test_an_error_of_the_disk_changes_nothing(tokens_folder: Path) -> None:
    """The system refuses the write at the commit; the store drops the change, and works once the disk does."""
    code = """
import resource, sys
from pathlib import Path
from nfcli.models.errors import TokenStoreError
from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.worker.tokens.store import TokenStore
folder = Path(sys.argv[1])
def store_token(token):
    store.store(BearerTokenStoreInput(username="alice", token=token), before_commit=None)

store = TokenStore(folder)
store_token("old")
size = (folder / "cache.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    store_token("new")
except TokenStoreError as error:
    print(type(error).__name__, error)
print([record.token for record in store.records()])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store_token("newer")
store.close()
print([record.token for record in TokenStore(folder).records()])
"""
    command = [sys.executable, "-c", code, str(tokens_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == (
        f"TokenStoreDiskError the token database in {tokens_folder} failed with disk I/O error, nothing changed: "
        "check that disk\n['old']\n['old', 'newer']\n"
    ), done.stderr


# Damage


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(20_000))


def _cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2 + 100)


def _overwrite_a_page(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(3 * 4096)
        stream.write(b"\xa5" * 4096)


def _overwrite_an_index(file: Path) -> None:
    """Damage pages that only the integrity check reads, not the loading of tokens."""
    with closing(sqlite3.connect(file)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_tag_rowid'")
    with file.open("r+b") as stream:
        stream.seek((page - 1) * 4096)
        stream.write(b"\xa5" * 4096)


def _another_database(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE Cache(something, quite, different)")


@pytest.mark.parametrize("damage", [_garbage, _cut, _overwrite_a_page, _overwrite_an_index, _another_database])
def test_a_damaged_database_is_refused_at_open(
    open_store: OpenStore, tokens_folder: Path, damage: Callable[[Path], None]
) -> None:
    """The message names a remedy; after moving the file away the store starts empty."""
    store = open_store()
    for number in range(100):
        store_token(store, "alice", f"token-{number}", None)
    store.close()
    file = tokens_folder / "cache.db"
    damage(file)
    with pytest.raises(TokenStoreDamagedError) as refused:
        open_store()
    assert str(refused.value) == (
        f"{file} is damaged or no token database, nothing changed: "
        "restore it from a backup, or move it away to start without tokens"
    )
    shutil.move(file, tokens_folder.parent / "damaged.db")
    for name in ("cache.db-wal", "cache.db-shm"):
        (tokens_folder / name).unlink(missing_ok=True)
    assert contents(open_store()) == []


@pytest.mark.parametrize("mishap", ["removed", "replaced"])
@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal"])
def test_a_database_that_was_moved_away_is_not_written_to(
    open_store: OpenStore, tokens_folder: Path, name: str, mishap: str
) -> None:
    """SQLite would report success for rows that the next start won't load: it writes to its log first."""
    store = open_store()
    store_token(store, "alice", "old", None)
    file, moved = tokens_folder / name, tokens_folder / "moved.db"
    file.rename(moved)
    if mishap == "replaced":
        shutil.copy(moved, file)
    for write in (lambda: store_token(store, "alice", "new", None), lambda: delete_tokens(store, token="old")):
        with pytest.raises(
            TokenStoreDamagedError, match=r"was moved or replaced, nothing changed: restart the worker$"
        ):
            write()
    assert [record.token for record in store.records()] == ["old"]


def test_an_opening_whose_sweep_fails_fails_and_leaves_nothing_open(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """A database from which tokens can't be deleted is not used."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    store.close()
    raw_database.run("CREATE TRIGGER keep BEFORE DELETE ON Cache BEGIN SELECT RAISE(ABORT, 'no'); END")
    clock.now += 10
    threads, files = threading.active_count(), open_files()
    with pytest.raises(TokenStoreDamagedError):
        open_store()
    assert (threading.active_count(), open_files()) == (threads, files)


def test_a_failed_open_leaves_no_thread_and_no_file_open(open_store: OpenStore, tokens_folder: Path) -> None:
    """A worker that can't start must not hold resources that the next attempt needs."""
    open_store().close()
    _garbage(tokens_folder / "cache.db")
    threads, files = threading.active_count(), open_files()
    for _ in range(5):
        with pytest.raises(TokenStoreDamagedError):
            open_store()
    assert (threading.active_count(), open_files()) == (threads, files)
