"""A NorFab worker's token database as its library writes it: found, and read without trust."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from nfcli.models.errors import NorfabDatabaseError
from nfcli.shell.maintenance import norfab_database
from nfcli.shell.maintenance.norfab_database import NorfabTokens, find_database, read_tokens
from support.norfab.database import NorfabDatabase

NOW = 1_000_000_000.0
CREATED = "2026-05-31 12:08:51.914919"


def read(folder: Path) -> NorfabTokens:
    """Read a database."""
    return read_tokens(find_database(folder), NOW)


def tokens(found: NorfabTokens) -> list[tuple[str, str, float, float | None]]:
    """Return the tokens that were found, sorted."""
    return sorted((each.token, each.username, each.created, each.expires) for each in found.tokens)


def counts(found: NorfabTokens) -> tuple[int, int, int, int]:
    """Return the numbers of tokens and of records that were expired, invalid and unreadable."""
    return len(found.tokens), found.expired, found.invalid, found.unreadable


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return content and time of change of each file in a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("was_killed", [True, False])
def test_tokens_come_with_user_creation_and_expiry(norfab: NorfabDatabase, tmp_path: Path, was_killed: bool) -> None:
    """Of a worker that was killed, from its write-ahead log, and of one that has ended; no file changes."""
    local = datetime.fromisoformat(CREATED).timestamp()
    later = time.time() + 1000
    for number in range(12):
        norfab.store(f"t{number:02}", f"user {number % 3}", later if number % 2 else None)
    if not was_killed:
        norfab.close()
    folder = tmp_path / "left"
    shutil.copytree(norfab.folder, folder)
    before = contents(folder)
    assert any(path.name == "cache.db-wal" for path in before) is was_killed
    found = read(folder)
    assert contents(folder) == before
    assert counts(found) == (12, 0, 0, 0)
    assert tokens(found) == [
        (f"t{number:02}", f"user {number % 3}", local, pytest.approx(later, abs=60) if number % 2 else None)
        for number in range(12)
    ]


def test_a_worker_in_another_process_is_not_disturbed(tmp_path: Path) -> None:
    """Its committed tokens are found, those that it stores later are kept, and its files don't change."""
    folder = tmp_path / "cache"
    program = (
        "import diskcache, sys\n"
        f"cache = diskcache.FanoutCache({str(folder)!r}, shards=4)\n"
        "for token in map(str.strip, sys.stdin):\n"
        f"    record = {{'token': token, 'username': 'alice', 'created': {CREATED!r}}}\n"
        "    cache.set(f'bearer_token::{token}', record, tag='alice')\n"
        "    print(token, flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for stored in (1, 2, 3):
            worker.stdin.write(f"t{stored}\n")
            assert worker.stdout.readline() == f"t{stored}\n"
            before = contents(folder)
            assert len(read(folder).tokens) == stored
            assert contents(folder) == before
        worker.stdin.close()
    assert len(read(folder).tokens) == 3


def test_other_rows_of_the_database_are_ignored(norfab: NorfabDatabase) -> None:
    """Rows of other keys, pickled keys, and nfcli's own rows."""
    norfab.put("something", {"a": 1})
    norfab.put(("bearer_token::t1",), {"a": 1})
    norfab.put("bearer_token::t1", '{"token": "t1"}')
    assert counts(read(norfab.folder)) == (0, 0, 0, 0)


def test_expired_tokens_are_counted_and_not_loaded(norfab: NorfabDatabase) -> None:
    """Whatever their value: NorFab removes them late."""
    norfab.store("t1", "alice")
    norfab.plant(b"no pickle", "bearer_token::t2", expire_time=NOW)
    norfab.plant(b"no pickle", "bearer_token::t3", expire_time=7)
    assert counts(read(norfab.folder)) == (1, 2, 0, 0)


def test_invalid_records_are_counted_and_each_rule_is_reported_once(norfab: NorfabDatabase) -> None:
    """Without tokens."""
    norfab.store("good", "alice")
    norfab.store("s\u00e4cret", "alice")
    norfab.store("another secret", "alice")
    norfab.store("x" * 1025, "alice")
    norfab.store("u1", " alice")
    norfab.store("u2", "")
    norfab.store("c1", "alice", created="soon")
    norfab.store("c2", "alice", created="0001-01-01 00:00:00")
    norfab.store("c3", "alice", created="1900-01-01 00:00:00")
    norfab.put("bearer_token::k1", {"token": "k2", "username": "alice", "created": CREATED})
    norfab.put("bearer_token::k3", {"token": "k3", "username": "alice", "created": CREATED}, tag="bob")
    norfab.plant(
        pickle.dumps({"token": "e1", "username": "alice", "created": CREATED}), "bearer_token::e1", expire_time=1e15
    )
    found = read(norfab.folder)
    assert counts(found) == (1, 0, 11, 0)
    reasons = sorted(found.reasons.values())
    assert Counter(reason.split(":")[0] for reason in reasons) == {
        "created": 2,
        "expires": 1,
        "token": 3,
        "username": 3,
    }
    assert {reason[:48] for reason in reasons} > {
        "created: must be a time, as YYYY-MM-DD HH:MM:SS",
        "token: must be the one in the row's key",
        "username: two users have stored the token, store",
    }
    assert "cret" not in str(reasons)


def test_values_of_another_form_are_never_loaded(norfab: NorfabDatabase, tmp_path: Path) -> None:
    """Too large, in files of their own, or of other types."""
    record = pickle.dumps({"token": "t1", "username": "alice", "created": CREATED})
    (tmp_path / "outside.val").write_bytes(record)
    (norfab.folder / "000" / "inside.val").write_bytes(record)
    norfab.put("bearer_token::large", {"token": "large", "username": "u" * 70_000, "created": CREATED})
    assert list(norfab.folder.rglob("*.val")) != []
    norfab.plant(record, "bearer_token::out", filename="../../outside.val", value=None)
    norfab.plant(record, "bearer_token::in", filename="inside.val", value=None)
    norfab.plant(record, "bearer_token::both", filename="inside.val")
    norfab.plant(record, "bearer_token::bytes", mode=2)
    norfab.plant(record, "bearer_token::no mode", mode=None)
    norfab.plant(record, "bearer_token::text", value=record.hex())
    norfab.plant(record + bytes(64 * 1024), "bearer_token::padded")
    norfab.plant(record, "bearer_token::tag", tag=7)
    norfab.plant(record, "bearer_token::never", expire_time="never")
    assert counts(read(norfab.folder)) == (0, 0, 0, 10)


def test_planted_bytes_in_columns_are_harmless(norfab: NorfabDatabase) -> None:
    """Texts that aren't UTF-8."""
    record = pickle.dumps({"token": "t1", "username": "alice", "created": CREATED})
    norfab.plant(record, tag="alice")
    with closing(sqlite3.connect(norfab.folder / "000" / "cache.db")) as connection, connection:
        connection.execute("UPDATE Cache SET tag = CAST(x'ff' AS TEXT)")
    assert counts(read(norfab.folder)) == (0, 0, 1, 0)


WHERE = ["", "worker-1", "files", "__norfab__", "fabric"]


@pytest.mark.parametrize("named", WHERE)
def test_the_database_is_found_below_the_named_folder(
    make_norfab: Callable[[Path], NorfabDatabase], tmp_path: Path, named: str
) -> None:
    """Its own folder, its worker's, those above, NorFab's base folder and the one above that."""
    base = tmp_path / "fabric"
    cache = base / "__norfab__" / "files" / "worker" / "worker-1" / "cache"
    make_norfab(cache).close()
    files = [cache / f"{number:03}" / "cache.db" for number in range(4)]
    folder = cache if not named else next(parent for parent in cache.parents if parent.name == named)
    assert find_database(folder) == files
    assert find_database(tmp_path) == files


def test_of_several_databases_one_has_to_be_named(tmp_path: Path) -> None:
    """The message lists the first ten."""
    for number in range(12):
        file = tmp_path / f"worker-{number:02}" / "cache" / "000" / "cache.db"
        file.parent.mkdir(parents=True)
        file.touch()
    listed = ", ".join(str(tmp_path / f"worker-{number:02}" / "cache") for number in range(10))
    with pytest.raises(NorfabDatabaseError) as raised:
        find_database(tmp_path)
    assert str(raised.value) == f"{tmp_path} has 12 databases: name one of them: {listed}, 2 more"
    shutil.rmtree(tmp_path / "worker-11")
    shutil.rmtree(tmp_path / "worker-10")
    with pytest.raises(NorfabDatabaseError) as raised:
        find_database(tmp_path)
    assert str(raised.value) == f"{tmp_path} has 10 databases: name one of them: {listed}"


def test_a_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    """A database too far below, or in a folder of another name, isn't found."""
    (tmp_path / "000" / "cache.db").mkdir(parents=True)
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "cache.db").touch()
    deep = tmp_path.joinpath(*"abcdefg", "000", "cache.db")
    deep.parent.mkdir(parents=True)
    deep.touch()
    with pytest.raises(NorfabDatabaseError) as raised:
        find_database(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} has no NorFab worker's database (000/cache.db and so on): "
        "name the worker's cache folder, __norfab__/files/worker/NAME/cache"
    )
    assert find_database(tmp_path / "a") == [deep]
    assert find_database(tmp_path / "tokens") == [tmp_path / "tokens" / "cache.db"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "No such file or directory"), ("file", "Not a directory"), ("x" * 300, "File name too long")],
)
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    """With the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(NorfabDatabaseError) as raised:
        find_database(tmp_path / name)
    message = str(raised.value)
    assert message.startswith(str(tmp_path / name))
    assert message.endswith(f" can't be read: {reason}: name a NorFab worker's cache folder that you can read")


def test_an_error_of_the_system_while_reading_is_reported(
    norfab: NorfabDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except that a file is missing: a NorFab worker that ends removes some."""
    norfab.close()
    stat = Path.stat

    def fail(path: Path, **options: bool) -> os.stat_result:
        if path.name == "cache.db-wal":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(NorfabDatabaseError, match=r"cache\.db-wal can't be read: Permission denied: name a NorFab wor"):
        read(norfab.folder)


def cut(file: Path) -> None:
    """Truncate a database."""
    os.truncate(file, 5000)


def garble(file: Path) -> None:
    """Overwrite a database."""
    file.write_bytes(b"not a database" * 1000)


def make_view(file: Path) -> None:
    """Replace the table by a view."""
    run(file, "ALTER TABLE Cache RENAME TO Rows", "CREATE VIEW Cache AS SELECT * FROM Rows")


def drop_table(file: Path) -> None:
    """Remove the table."""
    run(file, "DROP TABLE Cache")


def garble_schema(file: Path) -> None:
    """Write invalid text into the schema."""
    run(file, "PRAGMA writable_schema = 1", "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), sql = 'CREATE '")


def run(file: Path, *statements: str) -> None:
    """Run statements on a database."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("damage", [cut, garble, make_view, drop_table, garble_schema])
def test_a_damaged_database_is_refused(norfab: NorfabDatabase, damage: Callable[[Path], None]) -> None:
    """The message names the file; a view can't make up tokens."""
    norfab.store("t1", "alice")
    norfab.close()
    file = norfab.folder / "002" / "cache.db"
    damage(file)
    with pytest.raises(NorfabDatabaseError) as raised:
        read(norfab.folder)
    message = f"{file} is damaged or not a NorFab worker's database: use an intact copy of it"
    assert str(raised.value) == message


def test_a_row_that_is_too_large_is_damage(norfab: NorfabDatabase) -> None:
    """It is never loaded into memory."""
    norfab.plant(b"", f"bearer_token::{'x' * 2**20}")
    with pytest.raises(NorfabDatabaseError, match="is damaged or not a NorFab worker's database"):
        read(norfab.folder)


def test_a_copy_without_the_index_of_its_log_is_refused(norfab: NorfabDatabase, tmp_path: Path) -> None:
    """Tokens would be missing."""
    norfab.store("t1", "alice")
    copy = tmp_path / "copy"
    shutil.copytree(norfab.folder, copy)
    assert len(read(copy).tokens) == 1
    for index in copy.rglob("cache.db-shm"):
        index.unlink()
    with pytest.raises(NorfabDatabaseError) as raised:
        read(copy)
    file = next(path for path in find_database(copy) if path.with_name("cache.db-wal").stat().st_size)
    assert str(raised.value) == (
        f"{file} can't be read with cache.db-wal but without cache.db-shm: copy the entire folder"
    )


CODES = {
    "check owner and mode of the file and its folder": sqlite3.SQLITE_CANTOPEN,
    "is locked by another process: stop the NorFab worker": sqlite3.SQLITE_BUSY,
    "can't be read: broken disk: check that disk": sqlite3.SQLITE_IOERR,
    "could not be read within 30 s: use a copy of it": sqlite3.SQLITE_INTERRUPT,
    "is damaged or not a NorFab worker's database": sqlite3.SQLITE_NOTADB,
}


@pytest.mark.parametrize("message", sorted(CODES))
def test_an_error_of_sqlite_is_reported_with_its_remedy(
    norfab: NorfabDatabase, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """By its code."""
    error = sqlite3.OperationalError("broken disk")
    error.sqlite_errorcode = CODES[message]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(norfab_database, "is_intact", fail)
    with pytest.raises(NorfabDatabaseError, match=message):
        read(norfab.folder)


def test_a_locked_database_is_refused(norfab: NorfabDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may hold it exclusively."""
    norfab.close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **named: connect(*args, timeout=0.0, **named))
    file = norfab.folder / "000" / "cache.db"
    with closing(connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("UPDATE Settings SET value = value")
        with pytest.raises(NorfabDatabaseError, match="is locked by another process: stop the NorFab worker"):
            read(norfab.folder)
