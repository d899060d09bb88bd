"""Every fault of the disk with every operation: it succeeds, or fails in time and changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.backup import read_backup
from nfcli.worker.tokens.store import TokenStore
from support.small_disk import fill, small_disk
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, pragma, store_token

OpenStore = Callable[[], TokenStore]
Fault = Callable[[TokenStore], object]

IN_TIME_SECONDS = 6.0
PAGE = 4096
WRITES: dict[str, Callable[[TokenStore], object]] = {
    "create": lambda store: store_token(store, "carol", "new", 60),
    "renew": lambda store: store_token(store, "alice", "a1", 5),
    "delete a token": lambda store: delete_tokens(store, token="a1"),
    "delete a user": lambda store: delete_tokens(store, username="alice"),
    "sweep": lambda store: store.sweep(),
    "replace": lambda store: store.replace([BearerTokenRecord("r1", "rita", 0.0, None)], before_commit=None),
}


@pytest.fixture
def store(open_store: OpenStore, clock: SimpleNamespace) -> TokenStore:
    """Open a store with tokens of two users, one of them expired, and empty SQLite's page cache."""
    store = open_store()
    for username, token, expire in (("alice", "a1", 100), ("alice", "a2", None), ("bob", "b1", 10)):
        store_token(store, username, token, expire)
    clock.now += 20
    pragma(store, "shrink_memory")
    return store


def answers(store: TokenStore) -> object:
    """Return a store's answers to all queries."""
    records = [(record.token, record.username, record.created, record.expires) for record in store.records()]
    of_alice = [record.token for record in store.records("alice")]
    found = [store.lookup(token) is not None for token in ("a1", "a2", "b1", "new", "r1")]
    return records, of_alice, found, len(store), store.usernames(), store.has_expired()


def outcome(store: TokenStore, write: Callable[[TokenStore], object], said: str) -> str:
    """Return the name of the error that a write raises in time, with `said` in its message and nothing changed."""
    before = answers(store)
    started = time.monotonic()
    with pytest.raises(TokenStoreError) as refused:
        write(store)
    assert time.monotonic() - started < IN_TIME_SECONDS
    assert answers(store) == before
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    return type(refused.value).__name__


def outcomes(store: TokenStore, said: str) -> dict[str, str]:
    """Return the outcome of each write."""
    return {name: outcome(store, write, said) for name, write in WRITES.items()}


def outcomes_but_deletions(store: TokenStore, said: str) -> dict[str, str]:
    """Return the outcome of each write that a disk can refuse: a deletion revokes (`fallback/test_revocations.py`)."""
    writes = {name: write for name, write in WRITES.items() if not name.startswith("delete")}
    return {name: outcome(store, write, said) for name, write in writes.items()}


def backed_up(store: TokenStore, file: Path) -> list[tuple[str, str]]:
    """Back a store up and return what the backup holds."""
    store.backup(file)
    return [(record.token, record.username) for record in read_backup(file).records]


ALL_THREE = [("a1", "alice"), ("a2", "alice"), ("b1", "bob")]


def assert_all_is_well(store: TokenStore, open_store: OpenStore) -> None:
    """After the fault everything works, and the store's answers match the disk."""
    store.check()
    for name in ("create", "renew", "delete a token", "sweep"):
        WRITES[name](store)
    before = answers(store)
    store.close()
    store = open_store()
    assert answers(store) == before
    assert store.usernames() == ["alice", "carol"]


def test_a_lock_held_by_another_process(
    store: TokenStore, open_store: OpenStore, raw_database: RawDatabase, tmp_path: Path
) -> None:
    """Writes are refused; reads work, from the disk as well."""
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        found = outcomes(store, "token store busy, nothing changed: another process holds its database")
        assert backed_up(store, tmp_path / "backup.db") == ALL_THREE
        store.check()
        other.execute("ROLLBACK")
    assert found == dict.fromkeys(WRITES, TokenStoreBusyError.__name__)
    assert_all_is_well(store, open_store)


def test_many_writes_together_wait_no_longer_for_a_lock_than_one(
    tokens_folder: Path, raw_database: RawDatabase
) -> None:
    """Eight writes at once all fail when the first one does."""
    with TokenStore(tokens_folder, lock_timeout_seconds=1.0) as store, raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")

        def write(number: int) -> float:
            started = time.monotonic()
            with pytest.raises(TokenStoreBusyError):
                store_token(store, "alice", f"t{number}", None)
            return time.monotonic() - started

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(write, range(8))) < IN_TIME_SECONDS
        other.execute("ROLLBACK")
        store_token(store, "alice", "t", None)
        assert pragma(store, "busy_timeout") == (1000,)


@pytest.mark.parametrize(
    ("name", "mode", "remedy"), [("cache.db", 0o400, 600), ("cache.db-wal", 0o400, 600), (".", 0o500, 700)]
)
def test_files_that_turn_read_only(  # noqa: PLR0917  fixtures
    store: TokenStore, open_store: OpenStore, tokens_folder: Path, tmp_path: Path, name: str, mode: int, remedy: int
) -> None:
    """SQLite could still write, but the next start couldn't: the error comes now, with the remedy."""
    path = tokens_folder / name
    usual = path.stat().st_mode
    path.chmod(mode)
    found = outcomes_but_deletions(store, f"{path} can't be written, nothing changed: run chmod {remedy} {path}")
    assert backed_up(store, tmp_path / "backup.db") == ALL_THREE
    path.chmod(usual)
    assert set(found.values()) == {TokenStoreReadOnlyError.__name__}
    assert_all_is_well(store, open_store)


def test_a_full_disk(request: pytest.FixtureRequest, tokens_folder: Path, tmp_path: Path) -> None:
    """No byte is free, in the write-ahead log neither; a backup to another disk succeeds."""
    with small_disk(tokens_folder):
        store: TokenStore = request.getfixturevalue("store")
        open_store: OpenStore = request.getfixturevalue("open_store")
        pragma(store, "wal_checkpoint(TRUNCATE)")
        ballast = fill(tokens_folder)
        found = outcomes_but_deletions(store, f"the disk of {tokens_folder} is full, nothing changed: make room on it")
        assert outcome(store, lambda store: store.backup(tokens_folder / "backup.db"), "is full") == (
            TokenStoreFullError.__name__
        )
        assert backed_up(store, tmp_path / "backup.db") == ALL_THREE
        ballast.unlink()
        assert set(found.values()) == {TokenStoreFullError.__name__}
        assert_all_is_well(store, open_store)
        store.close()


def test_a_byte_that_was_flipped(store: TokenStore, tokens_folder: Path, tmp_path: Path) -> None:
    """The index on keys is damaged: nothing is written that a look-up couldn't find, and no backup is made."""
    file = tokens_folder / "cache.db"
    pragma(store, "wal_checkpoint(TRUNCATE)")
    pragma(store, "shrink_memory")
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'")
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(b"\xa5")
    writes = WRITES | {"backup": lambda store: store.backup(tmp_path / "backup.db"), "check": TokenStore.check}
    found = {name: outcome(store, write, f"{file} is damaged or no token database") for name, write in writes.items()}
    assert found == dict.fromkeys(writes, TokenStoreDamagedError.__name__)
    assert not (tmp_path / "backup.db").exists()


@pytest.mark.parametrize("kept", [0, 32, 0.5])
def test_a_truncated_write_ahead_log(
    store: TokenStore, open_store: OpenStore, tokens_folder: Path, tmp_path: Path, kept: float
) -> None:
    """SQLite would write past its end, successfully, and the next start would load none of it."""
    log = tokens_folder / "cache.db-wal"
    os.truncate(log, kept if isinstance(kept, int) else int(log.stat().st_size * kept))
    writes = WRITES | {"backup": lambda store: store.backup(tmp_path / "backup.db"), "check": TokenStore.check}
    said = f"the write-ahead log of the token database in {tokens_folder} was truncated"
    found = {name: outcome(store, write, said) for name, write in writes.items()}
    assert found == dict.fromkeys(writes, TokenStoreDamagedError.__name__)
    assert not (tmp_path / "backup.db").exists()
    store.close()
    store_token(open_store(), "alice", "a3", None)


@pytest.mark.parametrize("is_by_sqlite", [True, False])
def test_a_write_ahead_log_that_another_program_folded_in(
    store: TokenStore, tokens_folder: Path, raw_database: RawDatabase, tmp_path: Path, *, is_by_sqlite: bool
) -> None:
    """A database browser may do so: nothing is lost, and the next start loads everything."""
    with raw_database.connect() as other:
        other.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if is_by_sqlite else 'FULL'})").fetchall()
    if not is_by_sqlite:
        os.truncate(tokens_folder / "cache.db-wal", 0)
    store.check()
    assert backed_up(store, tmp_path / "backup.db") == ALL_THREE
    store_token(store, "carol", "new", None)
    delete_tokens(store, token="a1")
    shutil.copytree(tokens_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    with TokenStore(tmp_path / "copy", clock=store.now) as copy:
        assert [record.token for record in copy.records()] == ["a2", "new"]


@pytest.mark.parametrize("mishap", ["renamed", "removed", "log removed"])
def test_a_folder_that_was_moved_or_removed(
    store: TokenStore, tokens_folder: Path, tmp_path: Path, mishap: str
) -> None:
    """The open database can still be backed up; nothing is written to files that the next start won't read."""
    if mishap == "renamed":
        tokens_folder.rename(tmp_path / "moved")
    elif mishap == "removed":
        shutil.rmtree(tokens_folder)
    else:
        (tokens_folder / "cache.db-wal").unlink()
    writes = WRITES | {"check": TokenStore.check}
    said = f"the token database in {tokens_folder} was moved or replaced, nothing changed: restart the worker"
    found = {name: outcome(store, write, said) for name, write in writes.items()}
    assert found == dict.fromkeys(writes, TokenStoreDamagedError.__name__)
    assert backed_up(store, tmp_path / "backup.db") == ALL_THREE


def test_a_folder_that_can_not_be_accessed(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Files that can't be accessed give an error with the system's reason."""
    folder = tmp_path / "closed" / "tokens"
    with TokenStore(folder, clock=lambda: clock.now) as store:
        store_token(store, "alice", "a1", None)
        folder.parent.rename(tmp_path / "elsewhere")
        folder.parent.touch()  # a file where the folder was
        said = f"the token database in {folder} can't be accessed (Not a directory), nothing changed: "
        assert set(outcomes_of_storing(store, said).values()) == {TokenStoreReadOnlyError.__name__}


def outcomes_of_storing(store: TokenStore, said: str) -> dict[str, str]:
    """Return the outcome of each write that stores something, where there is nothing to sweep."""
    return {name: outcome(store, WRITES[name], said) for name in ("create", "renew", "replace")}
