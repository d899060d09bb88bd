"""Rows and settings that another program wrote into the database: pickles, invalid tokens, unsafe settings."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import diskcache
import pytest

from nfcli.models.errors import TokenStoreDamagedError, TokenStoreError
from nfcli.worker.tokens import database as token_disk
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, pragma, store_token

OpenStore = Callable[[], TokenStore]


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


# Planted rows


class _Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _plant_bombs(folder: Path, raw_database: RawDatabase, proof: Path) -> None:
    bomb = pickle.dumps(_Bomb(proof))
    raw_database.plant(token="as-value", mode=4, value=bomb)
    raw_database.plant(key=bomb, raw=0)
    raw_database.plant(key=pickle.dumps(("bearer_token::", _Bomb(proof))), raw=None)
    (folder / "bomb.val").write_bytes(bomb)
    raw_database.plant(token="as-file", mode=4, value=None, filename="bomb.val")


def test_planted_pickles_never_run(
    open_store: OpenStore, tokens_folder: Path, raw_database: RawDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted in one log line; other tokens work, and storing a token replaces its pickled row."""
    store = open_store()
    store_token(store, "alice", "good", None)
    store.close()
    proof = tokens_folder / "it ran"
    _plant_bombs(tokens_folder, raw_database, proof)
    store = open_store()
    assert [record.token for record in store.records()] == ["good"]
    assert (store.pickled_rows, store.invalid_rows) == (4, 0)
    assert store.lookup("as-value") is None
    [said] = caplog.messages
    assert said == (
        f"skipped 4 pickled rows of the token database in {tokens_folder}, since unpickling can run arbitrary code "
        f"(NorFab workers write such rows): import their tokens with nfcli --import-norfab {tokens_folder}"
    )
    store_token(store, "bob", "as-value", None)
    delete_tokens(store, token="as-file")
    store.sweep()
    store.close()
    assert open_store().usernames() == ["alice", "bob"]
    assert not proof.exists()


def test_a_plain_cache_runs_the_planted_pickles(
    open_store: OpenStore, tokens_folder: Path, raw_database: RawDatabase, tmp_path: Path
) -> None:
    """The control: a plain diskcache runs them."""
    open_store().close()
    proof = tmp_path / "it ran"
    _plant_bombs(tokens_folder, raw_database, proof)
    with diskcache.Cache(str(tokens_folder)) as cache:
        cache.get("bearer_token::as-value")
    assert proof.exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda disk: disk.put(("a", 1)),
        lambda disk: disk.put(b"bytes"),
        lambda disk: disk.get(pickle.dumps("a"), 0),
        lambda disk: disk.get(pickle.dumps("a"), 1),
        lambda disk: disk.store({"a": 1}, False),
        lambda disk: disk.store(b"bytes", False),
        lambda disk: disk.store("text", True),
        lambda disk: disk.fetch(4, None, pickle.dumps("a"), False),
        lambda disk: disk.fetch(3, "../other.val", None, False),
        lambda disk: disk.fetch(1, None, b"bytes", False),
    ],
)
def test_the_disk_stores_and_fetches_text_only(tmp_path: Path, use: Callable[[diskcache.Disk], object]) -> None:
    """Values that diskcache would pickle, unpickle or put into a file of its own are refused in both directions."""
    with pytest.raises((TypeError, TokenStoreDamagedError)):
        use(token_disk.NoPickleDisk(str(tmp_path)))


def test_the_disk_passes_text_through(tmp_path: Path) -> None:
    """Text is returned unchanged."""
    disk = token_disk.NoPickleDisk(str(tmp_path))
    size, mode, filename, value = disk.store("value", False)
    assert (disk.get(*disk.put("key")), disk.fetch(mode, filename, value, False), size) == ("key", "value", 0)


def _value(**changes: object) -> str:
    return json.dumps({"token": "planted", "username": "alice", "created": "2026-05-31T12:08:51Z"} | changes)


@pytest.mark.parametrize(
    "columns",
    [
        {"value": _value(token="plan ted"), "key": "bearer_token::plan ted"},
        {"value": _value(token="other")},
        {"value": _value(username="a\tb"), "tag": "a\tb"},
        {"value": _value(username="bob")},
        {"tag": "bob"},
        {"tag": None},
        {"value": _value(username=7), "tag": 7},
        {"value": _value(created="yesterday")},
        {"value": _value(created=None)},
        {"value": _value(created="9999-12-31T23:59:59")},
        {"value": _value(created="0001-01-01T00:00:00")},
        {"value": '{"token": "planted"'},
        {"value": "[]"},
        {"value": 12},
        {"value": None},
        {"value": _value().encode()},
        {"expire_time": float("inf")},
        {"expire_time": -5.0},
        {"expire_time": 1e300},
        {"expire_time": "soon"},
        {"mode": 3, "value": None, "filename": "../../../../etc/passwd"},
        {"filename": "x.val"},
    ],
    ids=str,
)
def test_an_invalid_row_is_skipped_and_counted(
    open_store: OpenStore,
    tokens_folder: Path,
    raw_database: RawDatabase,
    caplog: pytest.LogCaptureFixture,
    columns: dict[str, object],
) -> None:
    """The other tokens are loaded, and one log line reports the row without its content."""
    store = open_store()
    store_token(store, "alice", "good", None)
    store.close()
    raw_database.plant(**columns)
    store = open_store()
    assert [record.token for record in store.records()] == ["good"]
    assert [record.entry(store.now())["token"] for record in store.records()] == ["good"]
    assert (store.pickled_rows, store.invalid_rows) == (0, 1)
    [said] = caplog.messages
    assert said == (
        f"skipped 1 rows of the token database in {tokens_folder} that hold no valid token: "
        "store these tokens again with fastmcp auth create-token"
    )


def test_text_that_is_not_utf_8_is_skipped(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """In any column; Python's sqlite3 would fail to decode it and make the entire table unreadable."""
    open_store().close()
    good = ["'bearer_token::x'", "1", "'alice'", "1", "'{}'"]
    for number, column in ((0, "key"), (2, "tag"), (4, "value")):
        row = good.copy()
        row[number] = f"CAST(x'{(b'bearer_token::' + column.encode()).hex()}ff' AS TEXT)"
        row[0] = row[0] if number == 0 else f"'bearer_token::{column}'"
        with raw_database.connect() as other:
            other.execute(f"INSERT INTO Cache(key, raw, tag, mode, value) VALUES({', '.join(row)})")
    store = open_store()
    assert (contents(store), store.invalid_rows) == ([], 3)


def test_rows_of_other_programs_are_left_unchanged(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """A key without the prefix is neither a token nor an error."""
    open_store().close()
    raw_database.plant(key="something else")
    raw_database.plant(key=5)
    store = open_store()
    assert (contents(store), store.pickled_rows, store.invalid_rows) == ([], 0, 0)
    store_token(store, "alice", "secret-token", None)
    assert len(raw_database.keys()) == 3


# Settings


def test_settings_planted_in_the_file_are_ignored(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """A tiny size limit evicts nothing, and no planted PRAGMA or attribute takes effect: 1,000 tokens remain."""
    open_store().close()
    planted = {
        "size_limit": 1,
        "cull_limit": 100,
        "eviction_policy": "least-recently-stored",
        "statistics": 1,
        "sqlite_synchronous": 0,
        "sqlite_secure_delete": 0,
        "sqlite_journal_mode": "off",
        "sqlite_query_only": 1,
        "sqlite_no = such; pragma": "'",
        "disk_unknown": 1,
        "_cull": "not callable",
        b"bytes": None,
    }
    with raw_database.connect() as other:
        other.executemany("INSERT OR REPLACE INTO Settings VALUES(?, ?)", planted.items())
        other.execute("UPDATE Settings SET value = 'much' WHERE key = 'size'")
    store = open_store()
    for number in range(1000):
        store_token(store, f"user-{number % 10}", f"token-{number}", 10 + number)
    before = contents(store)
    assert len(before) == 1000
    _assert_durable(store)
    store.close()
    assert contents(open_store()) == before


def test_the_settings_are_those_of_the_durable_recipe(open_store: OpenStore) -> None:
    """On the connection that writes, and after reopening."""
    store = open_store()
    _assert_durable(store)
    store.close()
    _assert_durable(open_store())


def _assert_durable(store: TokenStore) -> None:
    names = ("journal_mode", "synchronous", "secure_delete", "mmap_size", "fullfsync")
    assert [pragma(store, name) for name in names] == [("wal",), (2,), (1,), (0,), (1,)]
    cache = store.database.cache
    assert (cache.eviction_policy, cache.cull_limit, cache.statistics, cache.tag_index) == ("none", 0, 0, 1)


def test_settings_that_did_not_take_are_refused(
    open_store: OpenStore, tokens_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without shared memory, for example, keeps SQLite from using a write-ahead log."""
    found = token_disk.SETTINGS | token_disk.PRAGMAS | {"journal_mode": "delete"}
    monkeypatch.setattr(token_disk.TokenCache, "settings_in_force", lambda _cache: found)
    files = open_files()
    with pytest.raises(TokenStoreError) as refused:
        open_store()
    assert str(refused.value) == (
        f"the token database in {tokens_folder} can't be used safely: journal_mode is delete, wal is required; "
        "keep it on a local disk"
    )
    assert open_files() == files


def test_a_database_that_drops_written_rows_is_detected(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """A planted trigger deletes every row that is inserted."""
    open_store().close()
    with raw_database.connect() as other:
        other.execute(
            "CREATE TRIGGER swallow AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE rowid = NEW.rowid; END"
        )
    store = open_store()
    with pytest.raises(TokenStoreDamagedError, match="doesn't keep rows"):
        store_token(store, "alice", "secret-token", None)
    assert store.lookup("secret-token") is None
