"""What a token store leaves in its files and in its process: durable, private, without traces, no more every time."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.errors import EnvironmentFolderError, TokenStoreBusyError, TokenStoreError, TokenStoreReadOnlyError
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-shm"])
def test_a_read_only_file_is_refused_at_open(open_store: OpenStore, tokens_folder: Path, name: str) -> None:
    """Of a database that a killed worker left: SQLite would go on without writing to it."""
    store = open_store()
    store_token(store, "alice", "t", None)
    copy = tokens_folder.parent / "copy"
    shutil.copytree(tokens_folder, copy)
    (copy / name).chmod(0o400)
    with pytest.raises(TokenStoreReadOnlyError) as refused:
        TokenStore(copy)
    assert str(refused.value) == f"{copy / name} can't be written, nothing changed: run chmod 600 {copy / name}"


# Durability and traces


def test_what_is_stored_is_in_the_files_at_once(open_store: OpenStore, tokens_folder: Path, tmp_path: Path) -> None:
    """A copy of the files, made while the worker runs, has every store and every deletion that was answered."""
    store = open_store()
    for number in range(20):
        store_token(store, "alice", f"token-{number}", None)
    delete_tokens(store, token="token-7")
    shutil.copytree(tokens_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    with TokenStore(tmp_path / "copy") as copy:
        assert contents(copy) == contents(store)


def test_a_user_is_deleted_in_one_transaction(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """When the last of 250 rows can't be removed, all 250 stay; a token never half goes."""
    store = open_store()
    for number in range(250):
        store_token(store, "alice", f"token-{number}", None)
    before = contents(store)
    with raw_database.connect() as other:
        other.execute(
            "CREATE TRIGGER stop BEFORE DELETE ON Cache WHEN OLD.key = 'bearer_token::token-249' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(TokenStoreError):
            delete_tokens(store, username="alice")
        assert contents(store) == before
        assert len(raw_database.keys()) == 250
        other.execute("DROP TRIGGER stop")
    assert delete_tokens(store, username="alice") == 250
    assert raw_database.keys() == []


def test_a_deleted_token_leaves_no_trace_in_the_files(open_store: OpenStore, tokens_folder: Path) -> None:
    """After the store is closed; SQLite's default is to leave the bytes in freed space."""
    store = open_store()
    store_token(store, "alice", "kept-kept-kept-kept", None)
    store_token(store, "alice", "gone-gone-gone-gone", None)
    delete_tokens(store, token="gone-gone-gone-gone")
    store.close()
    everything = b"".join(path.read_bytes() for path in tokens_folder.rglob("*") if path.is_file())
    assert b"kept-kept-kept-kept" in everything
    assert b"gone-gone-gone-gone" not in everything


@pytest.mark.slow
def test_files_and_threads_stay_flat(open_store: OpenStore) -> None:
    """Over ten thousand calls; diskcache opens a connection for each thread that calls it, and keeps it."""
    store = open_store()
    counts = set()
    for number in range(1_250):
        caller = threading.Thread(target=store_token, args=(store, "alice", f"token-{number % 7}", 60))
        caller.start()
        caller.join()
        delete_tokens(store, token=f"token-{number % 5}")
        for read in (store.sweep, store.records, store.usernames, store.has_expired, store.now):
            read()
        store.lookup("token-1")
        counts.add((open_files(), threading.active_count()))
    assert len(counts) == 1


# Modes


def test_everything_is_private_whatever_the_umask(open_store: OpenStore, tokens_folder: Path) -> None:
    """The folder 0700; database, write-ahead log and shared memory 0600."""
    umask = os.umask(0)
    try:
        store = open_store()
        store_token(store, "alice", "secret-token", None)
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tokens_folder, *tokens_folder.iterdir())}
    finally:
        os.umask(umask)
    files = dict.fromkeys(["cache.db", "cache.db-wal", "cache.db-shm", "reserve", "revoked"], "0o600")
    assert modes == {"tokens": "0o700", **files}


def test_a_folder_open_to_others_is_refused(open_store: OpenStore, tokens_folder: Path) -> None:
    """They may have been in already, so it is not fixed silently."""
    tokens_folder.mkdir()
    tokens_folder.chmod(0o755)
    with pytest.raises(EnvironmentFolderError, match=r"chmod 700 "):
        open_store()
    tokens_folder.chmod(0o700)
    open_store()


def test_no_fault_is_logged_with_a_token(
    open_store: OpenStore, raw_database: RawDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does any error's text or cause name one."""
    caplog.set_level(logging.DEBUG)
    store = open_store()
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TokenStoreBusyError) as refused:
            store_token(store, "alice", "secret-token", None)
    assert "secret-token" not in caplog.text + str(refused.value) + repr(refused.value.__cause__)
