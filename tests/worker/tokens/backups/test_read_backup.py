"""Backups are read as untrusted files."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import diskcache
import pytest

from nfcli.models.errors import TokenStoreDamagedError, TokenStoreError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.backup import read_backup
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import store_token

OpenStore = Callable[[], TokenStore]

PAGE = 4096


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


@pytest.fixture
def backup(store: TokenStore, tmp_path: Path) -> Path:
    """Make a backup of it."""
    file = tmp_path / "backup.db"
    store.backup(file)
    return file


def spoil_an_index(file: Path) -> None:
    """Flip a byte that loading the tokens doesn't read."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_tag_rowid'")
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(b"\xa5")


def _run(*statements: str) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return spoil


def _write(at: int, data: bytes) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        with file.open("r+b") as stream:
            stream.seek(at)
            stream.write(data)

    return spoil


def _a_table_that_is(statement: str) -> Callable[[Path], None]:
    return _run("ALTER TABLE Cache RENAME TO Real", "DROP TRIGGER IF EXISTS Settings_count_insert", statement)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def _companion(ending: str) -> Callable[[Path], None]:
    return lambda file: file.with_name(file.name + ending).touch()


HUGE = "INSERT INTO Cache(key, raw, tag, mode, value) VALUES('bearer_token::x', 1, 'alice', 1, {})"
COLUMNS = "key, raw, tag, mode, filename, expire_time, value"
HOSTILE = {
    "nothing": lambda file: os.truncate(file, 0),
    "garbage": lambda file: file.write_bytes(os.urandom(20_000)),
    "text": lambda file: file.write_text('{"token": "a"}'),
    "a header alone": lambda file: os.truncate(file, 100),
    "cut": _cut,
    "a page overwritten": _write(3 * PAGE, b"\xa5" * PAGE),
    "an index damaged": spoil_an_index,
    "a freelist of its own": _write(32, b"\x00\x00\x00\x02\x00\x00\x00\xff"),
    "pages of another size": _write(16, b"\x02\x00"),
    "no table": _run("DROP TABLE Cache"),
    "another table": _run("DROP TABLE Cache", "CREATE TABLE Cache(something, quite, different)"),
    "a view": _a_table_that_is("CREATE VIEW Cache AS SELECT *, rowid FROM Real"),
    "a view without end": _a_table_that_is(
        "CREATE VIEW Cache AS WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n) "
        "SELECT key, 1 AS raw, '' AS tag, 1 AS mode, NULL AS filename, NULL AS expire_time, '' AS value, key AS rowid "
        "FROM n"
    ),
    "a virtual table": _a_table_that_is(f"CREATE VIRTUAL TABLE Cache USING fts5({COLUMNS})"),
    "a computed column": _a_table_that_is(
        "CREATE TABLE Cache(key, raw, tag, mode, filename, expire_time, value AS (hex(zeroblob(100000))))"
    ),
    "no rowid": _a_table_that_is(f"CREATE TABLE Cache({COLUMNS}, PRIMARY KEY(key)) WITHOUT ROWID"),
    "a huge row": _run(HUGE.format("CAST(zeroblob(5000000) AS TEXT)")),
    "a journal beside it": _companion("-journal"),
    "a log beside it": _companion("-wal"),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_backup_is_refused_in_one_line(backup: Path, spoil: Callable[[Path], object]) -> None:
    """The message names the file, which is unchanged."""
    spoil(backup)
    before = [(path.name, path.stat().st_size) for path in sorted(backup.parent.iterdir())]
    data = backup.read_bytes()
    with pytest.raises(TokenStoreDamagedError) as refused:
        read_backup(backup)
    assert str(refused.value).startswith(f"{backup} is ")
    assert str(refused.value).endswith(", nothing changed: use another file")
    assert "\n" not in str(refused.value)
    assert [(path.name, path.stat().st_size) for path in sorted(backup.parent.iterdir())] == before
    assert backup.read_bytes() == data


def test_a_backup_that_takes_too_long_is_refused(store: TokenStore, tmp_path: Path) -> None:
    """The time limit holds whatever keeps SQLite busy."""
    store.replace((BearerTokenRecord(f"token-{n}", "alice", 0.0, None) for n in range(10_000)), before_commit=None)
    backup = tmp_path / "large.db"
    store.backup(backup)
    assert len(read_backup(backup).records) == 10_000
    with pytest.raises(TokenStoreDamagedError, match=r"is damaged or no backup of a token database"):
        read_backup(backup, seconds=0.0)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_path_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """Opening a pipe would block until another process writes to it."""
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(TokenStoreDamagedError, match=r"is damaged or no backup of a token database"):
        read_backup(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """Reading doesn't create it."""
    file = tmp_path / "backup.db"
    with pytest.raises(TokenStoreError) as refused:
        read_backup(file)
    assert str(refused.value) == f"the backup {file} can't be read: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_file_names_may_have_characters_of_uris(store: TokenStore, tmp_path: Path) -> None:
    """They are escaped where SQLite opens a URI."""
    file = tmp_path / "a b?mode=rwc#c%20&d"
    store.backup(file)
    assert len(read_backup(file).records) == 100


def test_a_file_whose_header_asks_for_a_log_is_read_without_one(backup: Path) -> None:
    """A copy of a stopped worker's database has such a header."""
    _write(18, b"\x02\x02")(backup)
    assert len(read_backup(backup).records) == 100
    assert [path.name for path in sorted(backup.parent.iterdir())] == ["backup.db", "tokens"]


class _Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_planted_pickles_are_counted_and_never_run(
    open_store: OpenStore, raw_database: RawDatabase, tokens_folder: Path, tmp_path: Path
) -> None:
    """As key, as value and in a file; and the control: a plain diskcache runs them."""
    open_store().close()
    proof = tmp_path / "it ran"
    bomb = pickle.dumps(_Bomb(proof))
    raw_database.plant(token="good")
    raw_database.plant(token="as-value", mode=4, value=bomb)
    raw_database.plant(key=bomb, raw=0)
    (tokens_folder / "bomb.val").write_bytes(bomb)
    raw_database.plant(token="as-file", mode=4, value=None, filename="bomb.val")
    loaded = read_backup(tokens_folder / "cache.db")
    assert ([record.token for record in loaded.records], loaded.pickled, loaded.invalid) == (["good"], 3, 0)
    assert not proof.exists()
    with diskcache.Cache(str(tokens_folder)) as cache:
        cache.get("bearer_token::as-value")
    assert proof.exists()


def test_rows_that_break_a_rule_are_counted(
    open_store: OpenStore, raw_database: RawDatabase, tokens_folder: Path
) -> None:
    """A token that comes twice belongs to the first row; triggers and other programs' rows are ignored."""
    open_store().close()
    value = '{"token": "twice", "username": "mallory", "created": "2026-05-31T12:08:51+00:00"}'
    raw_database.run("DROP INDEX Cache_key_raw")
    raw_database.plant(token="twice")
    raw_database.plant(token="twice", tag="mallory", value=value)
    raw_database.plant(token="wrong", value="[]")
    raw_database.plant(key="something else")
    raw_database.run("CREATE TRIGGER t AFTER UPDATE ON Cache BEGIN DELETE FROM Cache; END")
    loaded = read_backup(tokens_folder / "cache.db")
    assert [(record.token, record.username) for record in loaded.records] == [("twice", "alice")]
    assert (loaded.pickled, loaded.invalid) == (0, 2)


def test_a_database_in_use_is_no_backup_and_stays_locked(store: TokenStore, tokens_folder: Path) -> None:
    """An old state could revive deleted tokens, and closing the file would drop SQLite's locks on it."""
    file = tokens_folder / "cache.db"
    with pytest.raises(TokenStoreDamagedError) as refused:
        read_backup(file)
    assert str(refused.value) == (
        f"{file} is a database in use and no backup, as cache.db-wal next to it shows, "
        "nothing changed: use another file"
    )
    others_try = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode = DELETE')"
    command = [sys.executable, "-c", others_try, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.splitlines()[-1:] == ["sqlite3.OperationalError: database is locked"]
    store_token(store, "alice", "another", None)
