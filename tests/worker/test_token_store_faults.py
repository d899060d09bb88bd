"""A token store in the hands of faults and attackers: locks, full disks, damage, planted rows. The disk is real."""

from __future__ import annotations

import json
import logging
import os
import pickle
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

import diskcache
import pytest

from nfcli.models.errors import (
    EnvironmentFolderError,
    TokenStoreBusyError,
    TokenStoreDamagedError,
    TokenStoreError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)
from nfcli.worker import token_disk
from nfcli.worker.token_store import TokenStore

OpenStore = Callable[[], TokenStore]

NOBODY = 65_534


@contextmanager
def stranger(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database as somebody else would: another connection that knows none of our rules."""
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as connection:
        yield connection


def plant(folder: Path, **columns: object) -> None:
    """Write one row; columns that aren't given are those of a good token row."""
    token = columns.pop("token", "planted")
    value = json.dumps({"token": token, "username": "alice", "created": "2026-05-31T12:08:51+00:00"})
    row = {"key": f"bearer_token::{token}", "raw": 1, "tag": "alice", "mode": 1, "value": value, **columns}
    marks = ", ".join("?" * len(row))
    with stranger(folder) as connection:
        connection.execute(f"INSERT INTO Cache({', '.join(row)}) VALUES({marks})", tuple(row.values()))


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def on_disk(folder: Path) -> list[str]:
    """Return the keys that a new reader of the file sees."""
    with stranger(folder) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM Cache ORDER BY rowid")]


def open_files() -> int:
    """Count this process's file descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


def pragma(store: TokenStore, text: str) -> object:
    """Run a PRAGMA on the store's own connection, in the store's own thread."""
    return store._run(lambda: store._database._cache._sql(f"PRAGMA {text}").fetchone())


# Locks


def test_a_lock_held_by_somebody_else_fails_every_write_in_time(
    open_store: OpenStore, tokens_folder: Path, clock: SimpleNamespace
) -> None:
    """One clear error each, nothing changed in memory or on disk, look-ups untouched, and all is well afterwards."""
    store = open_store()
    store.store("alice", "short", 10)
    store.store("alice", "long", 1000)
    clock.now += 10
    before = contents(store)
    with stranger(tokens_folder) as other:
        other.execute("BEGIN EXCLUSIVE")
        for write in (
            lambda: store.store("alice", "long", 5),
            lambda: store.store("alice", "new", 5),
            lambda: store.delete(username="alice"),
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
    assert on_disk(tokens_folder) == ["bearer_token::short", "bearer_token::long"]
    assert store.sweep() == 1
    assert store.delete(username="alice") == 1


def test_opening_a_locked_database_fails_in_time(open_store: OpenStore, tokens_folder: Path) -> None:
    """Left to itself diskcache would try for a minute."""
    open_store().close()
    threads = threading.active_count()
    with stranger(tokens_folder) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(TokenStoreBusyError, match=r"^token store busy, nothing changed: "):
            open_store()
        assert time.monotonic() - started < 6
    assert threading.active_count() == threads
    open_store()


def test_the_time_to_wait_for_a_lock_is_five_seconds() -> None:
    """The tests above set it lower; with this an operation ends within six."""
    assert token_disk.LOCK_TIMEOUT_SECONDS == 5


def test_a_lock_does_not_delay_look_ups(open_store: OpenStore, tokens_folder: Path) -> None:
    """The verifier's answers don't wait for a write that waits."""
    store = open_store()
    store.store("alice", "secret-token", None)
    with stranger(tokens_folder) as other:
        other.execute("BEGIN EXCLUSIVE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.delete, username="alice")
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
    """Be a user whom modes stop, owner of `folder`: root passes over modes."""
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


@pytest.mark.parametrize("mode", [("cache.db", 0o400), ("", 0o500)], ids=["file", "folder"])
def test_a_read_only_database_is_refused_at_open(mode: tuple[str, int]) -> None:
    """A file, or a folder in which the write-ahead log can't be made."""
    with tempfile.TemporaryDirectory() as top:  # pytest's own folders keep other users out
        Path(top).chmod(0o755)
        folder = Path(top, "tokens")
        TokenStore.open(folder).close()
        (folder / mode[0]).chmod(mode[1])
        with without_privileges(folder):
            with pytest.raises(TokenStoreReadOnlyError, match=r"can't be .*, nothing changed: ") as refused:
                TokenStore.open(folder)
            assert "\n" not in str(refused.value)
            folder.chmod(0o700)
            (folder / "cache.db").chmod(0o600)
            TokenStore.open(folder).close()


def test_a_database_that_turns_read_only_changes_nothing(open_store: OpenStore, tokens_folder: Path) -> None:
    """The error is its own, and when it can be written again it is."""
    store = open_store()
    store.store("alice", "old", None)
    pragma(store, "query_only = 1")
    for write in (lambda: store.store("alice", "new", None), lambda: store.delete(token="old")):
        with pytest.raises(TokenStoreReadOnlyError, match=r"can't be written, nothing changed: "):
            write()
    assert [record.token for record in store.records()] == ["old"]
    pragma(store, "query_only = 0")
    assert store.delete(token="old") == 1
    assert on_disk(tokens_folder) == []


def test_a_full_disk_changes_nothing(open_store: OpenStore, tokens_folder: Path) -> None:
    """What is stored stays, deletion still works, and with room again so does storing."""
    store = open_store()
    pragma(store, "max_page_count = 24")
    count = 0

    def fill() -> None:
        nonlocal count
        while count < 1000:
            store.store("alice", f"{count}-{'x' * 900}", None)
            count += 1

    with pytest.raises(TokenStoreFullError, match=r"^the disk of .* is full, nothing changed: make room on it$"):
        fill()
    assert count > 0
    assert [record.token.split("-")[0] for record in store.records()] == [str(number) for number in range(count)]
    assert len(on_disk(tokens_folder)) == count
    assert store.delete(token=f"0-{'x' * 900}") == 1
    pragma(store, "max_page_count = 100000")
    store.store("alice", "again", None)
    before = contents(store)
    store.close()
    assert contents(open_store()) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB; only root may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_token_can_be_revoked_on_a_full_disk(small_disk: Path) -> None:
    """The room that the write-ahead log takes is given back for it."""
    folder = small_disk / "tokens"
    with TokenStore.open(folder) as store:
        store.store("alice", "secret-token", None)
    with TokenStore.open(folder) as store:
        for _ in range(20):
            store.store("alice", "secret-token", None)
        _fill(small_disk)
        assert store.delete(token="secret-token") == 1
        assert on_disk(folder) == []
        _fill(small_disk)
        with pytest.raises(TokenStoreFullError):
            store.store("alice", "x" * 1000, None)
        assert contents(store) == []


def _fill(folder: Path) -> None:
    with (folder / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_a_commit_that_fails_leaves_no_transaction_open(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite keeps the transaction after some failures; the next write must not stumble over it."""
    store = open_store()
    cache = store._database._cache

    @contextmanager
    def transact(*, retry: bool) -> Iterator[None]:
        assert not retry
        cache._sql("BEGIN IMMEDIATE")
        yield
        cache._sql("COMMIT AND FAIL")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "transact", transact)
        with pytest.raises(TokenStoreError):
            store.store("alice", "secret-token", None)
    assert contents(store) == []
    store.store("alice", "secret-token", None)
    assert [record.token for record in store.records()] == ["secret-token"]


def test_an_error_of_the_disk_changes_nothing(tokens_folder: Path) -> None:
    """The system refuses the write at the commit; the store tells, forgets, and goes on when the disk does."""
    code = """
import resource, sys
from pathlib import Path
from nfcli.models.errors import TokenStoreError
from nfcli.worker.token_store import TokenStore
folder = Path(sys.argv[1])
store = TokenStore.open(folder)
store.store("alice", "old", None)
size = (folder / "cache.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    store.store("alice", "new", None)
except TokenStoreError as error:
    print(type(error).__name__, error)
print([record.token for record in store.records()])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.store("alice", "newer", None)
store.close()
print([record.token for record in TokenStore.open(folder).records()])
"""
    command = [sys.executable, "-c", code, str(tokens_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == (
        f"TokenStoreError the token database in {tokens_folder} reports a disk I/O error, nothing changed: "
        "see to that disk\n['old']\n['old', 'newer']\n"
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
    """Damage what no reading of the tokens comes across, only the check."""
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
    """One plain line with a remedy; moving the file away is enough to begin anew."""
    store = open_store()
    for number in range(100):
        store.store("alice", f"token-{number}", None)
    store.close()
    file = tokens_folder / "cache.db"
    damage(file)
    with pytest.raises(TokenStoreDamagedError) as refused:
        open_store()
    assert str(refused.value) == (
        f"{file} is damaged or no token database, nothing changed: "
        "restore it from a backup, or move it away to begin with no tokens"
    )
    shutil.move(file, tokens_folder.parent / "damaged.db")
    for name in ("cache.db-wal", "cache.db-shm"):
        (tokens_folder / name).unlink(missing_ok=True)
    assert contents(open_store()) == []


@pytest.mark.parametrize("mishap", ["removed", "replaced"])
def test_a_database_that_was_moved_away_is_not_written_to(
    open_store: OpenStore, tokens_folder: Path, mishap: str
) -> None:
    """SQLite would report success for rows that no restart will find."""
    store = open_store()
    store.store("alice", "old", None)
    file = tokens_folder / "cache.db"
    file.rename(tokens_folder / "moved.db")
    if mishap == "replaced":
        file.touch()
    for write in (lambda: store.store("alice", "new", None), lambda: store.delete(token="old")):
        with pytest.raises(
            TokenStoreDamagedError, match=r"was moved or replaced, nothing changed: restart the worker$"
        ):
            write()
    assert [record.token for record in store.records()] == ["old"]


def test_a_database_that_drops_what_is_written_is_found_out(open_store: OpenStore, tokens_folder: Path) -> None:
    """A trigger planted in the file makes every INSERT a lie."""
    open_store().close()
    with stranger(tokens_folder) as other:
        other.execute(
            "CREATE TRIGGER swallow AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE rowid = NEW.rowid; END"
        )
    store = open_store()
    with pytest.raises(TokenStoreDamagedError, match="doesn't keep rows"):
        store.store("alice", "secret-token", None)
    assert store.lookup("secret-token") is None


def test_a_failed_open_leaves_no_thread_and_no_file_open(open_store: OpenStore, tokens_folder: Path) -> None:
    """A worker that can't start must not hold what the next try needs."""
    open_store().close()
    _garbage(tokens_folder / "cache.db")
    threads, files = threading.active_count(), open_files()
    for _ in range(5):
        with pytest.raises(TokenStoreDamagedError):
            open_store()
    assert (threading.active_count(), open_files()) == (threads, files)


# Planted rows


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _plant_bombs(folder: Path, proof: Path) -> None:
    bomb = pickle.dumps(_Bomb(proof))
    plant(folder, token="as-value", mode=4, value=bomb)
    plant(folder, key=bomb, raw=0)
    plant(folder, key=pickle.dumps(("bearer_token::", _Bomb(proof))), raw=None)
    (folder / "bomb.val").write_bytes(bomb)
    plant(folder, token="as-file", mode=4, value=None, filename="bomb.val")


def test_planted_pickles_never_run(
    open_store: OpenStore, tokens_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted and named in one line; tokens beside them work, and storing over one makes it good."""
    store = open_store()
    store.store("alice", "good", None)
    store.close()
    proof = tmp_path / "it ran"
    _plant_bombs(tokens_folder, proof)
    store = open_store()
    assert [record.token for record in store.records()] == ["good"]
    assert (store.pickled_rows, store.invalid_rows) == (4, 0)
    assert store.lookup("as-value") is None
    [said] = caplog.messages
    assert said == (
        f"4 rows of the token database in {tokens_folder} are pickled and were not read, since that could run "
        "anybody's code (NorFab workers write such rows): store these tokens again with fastmcp auth create-token"
    )
    store.store("bob", "as-value", None)
    store.delete(token="as-file")
    store.sweep()
    store.close()
    assert open_store().usernames() == ["alice", "bob"]
    assert not proof.exists()


def test_the_planted_pickles_are_live(open_store: OpenStore, tokens_folder: Path, tmp_path: Path) -> None:
    """The control: read by diskcache as it comes, they run."""
    open_store().close()
    proof = tmp_path / "it ran"
    _plant_bombs(tokens_folder, proof)
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
def test_the_disk_takes_and_gives_text_only(tmp_path: Path, use: Callable[[diskcache.Disk], object]) -> None:
    """Whatever diskcache would pickle, unpickle or put into a file of its own is refused in both directions."""
    with pytest.raises((TypeError, TokenStoreDamagedError)):
        use(token_disk.NoPickleDisk(str(tmp_path)))


def test_the_disk_passes_text_through(tmp_path: Path) -> None:
    """Text comes back as it went in."""
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
def test_an_invalid_row_is_passed_over_and_counted(
    open_store: OpenStore, tokens_folder: Path, caplog: pytest.LogCaptureFixture, columns: dict[str, object]
) -> None:
    """It is no token, it stops nothing, and one line says so without its content."""
    store = open_store()
    store.store("alice", "good", None)
    store.close()
    plant(tokens_folder, **columns)
    store = open_store()
    assert [record.token for record in store.records()] == ["good"]
    assert [record.entry(store.now())["token"] for record in store.records()] == ["good"]
    assert (store.pickled_rows, store.invalid_rows) == (0, 1)
    [said] = caplog.messages
    assert said == (
        f"1 rows of the token database in {tokens_folder} hold no valid token and were passed over: "
        "store these tokens again with fastmcp auth create-token"
    )


def test_text_that_is_not_utf_8_is_passed_over(open_store: OpenStore, tokens_folder: Path) -> None:
    """In any column; read as text by SQLite's module it would make the whole table unreadable."""
    open_store().close()
    good = ["'bearer_token::x'", "1", "'alice'", "1", "'{}'"]
    for number, column in ((0, "key"), (2, "tag"), (4, "value")):
        row = good.copy()
        row[number] = f"CAST(x'{(b'bearer_token::' + column.encode()).hex()}ff' AS TEXT)"
        row[0] = row[0] if number == 0 else f"'bearer_token::{column}'"
        with stranger(tokens_folder) as other:
            other.execute(f"INSERT INTO Cache(key, raw, tag, mode, value) VALUES({', '.join(row)})")
    store = open_store()
    assert (contents(store), store.invalid_rows) == ([], 3)


def test_rows_of_others_are_left_alone(open_store: OpenStore, tokens_folder: Path) -> None:
    """A key without our prefix is neither a token nor a fault."""
    open_store().close()
    plant(tokens_folder, key="something else")
    plant(tokens_folder, key=5)
    store = open_store()
    assert (contents(store), store.pickled_rows, store.invalid_rows) == ([], 0, 0)
    assert len(on_disk(tokens_folder)) == 2


# Settings


def test_settings_planted_in_the_file_do_not_count(open_store: OpenStore, tokens_folder: Path) -> None:
    """A tiny size limit evicts nothing, no planted PRAGMA runs, no planted attribute is set: 1,000 tokens stay."""
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
    with stranger(tokens_folder) as other:
        other.executemany("INSERT OR REPLACE INTO Settings VALUES(?, ?)", planted.items())
        other.execute("UPDATE Settings SET value = 'much' WHERE key = 'size'")
    store = open_store()
    for number in range(1000):
        store.store(f"user-{number % 10}", f"token-{number}", 10 + number)
    before = contents(store)
    assert len(before) == 1000
    _assert_durable(store)
    store.close()
    assert contents(open_store()) == before


def test_the_settings_are_those_of_the_durable_recipe(open_store: OpenStore) -> None:
    """On the connection that writes, and again after a reopening."""
    store = open_store()
    _assert_durable(store)
    store.close()
    _assert_durable(open_store())


def _assert_durable(store: TokenStore) -> None:
    names = ("journal_mode", "synchronous", "secure_delete", "mmap_size", "fullfsync")
    assert [pragma(store, name) for name in names] == [("wal",), (2,), (1,), (0,), (1,)]
    cache = store._database._cache
    assert (cache.eviction_policy, cache.cull_limit, cache.statistics, cache.tag_index) == ("none", 0, 0, 1)


def test_settings_that_did_not_take_are_refused(
    open_store: OpenStore, tokens_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without shared memory, say, keeps SQLite from using a write-ahead log."""
    found = token_disk._SETTINGS | token_disk._PRAGMAS | {"journal_mode": "delete"}
    monkeypatch.setattr(token_disk._Cache, "settings_in_force", lambda _cache: found)
    files = open_files()
    with pytest.raises(TokenStoreError) as refused:
        open_store()
    assert str(refused.value) == (
        f"the token database in {tokens_folder} can't be used safely: journal_mode is delete where wal is needed; "
        "keep it on a local disk"
    )
    assert open_files() == files


# Durability and traces


def test_what_is_stored_is_in_the_files_at_once(open_store: OpenStore, tokens_folder: Path, tmp_path: Path) -> None:
    """A copy of the files, made while the worker runs, has every store and every deletion that was answered."""
    store = open_store()
    for number in range(20):
        store.store("alice", f"token-{number}", None)
    store.delete(token="token-7")
    shutil.copytree(tokens_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    with TokenStore.open(tmp_path / "copy") as copy:
        assert contents(copy) == contents(store)


def test_a_user_is_deleted_in_one_transaction(open_store: OpenStore, tokens_folder: Path) -> None:
    """When the last of 250 rows can't be removed, all 250 stay; a token never half goes."""
    store = open_store()
    for number in range(250):
        store.store("alice", f"token-{number}", None)
    before = contents(store)
    with stranger(tokens_folder) as other:
        other.execute(
            "CREATE TRIGGER stop BEFORE DELETE ON Cache WHEN OLD.key = 'bearer_token::token-249' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(TokenStoreError):
            store.delete(username="alice")
        assert contents(store) == before
        assert len(on_disk(tokens_folder)) == 250
        other.execute("DROP TRIGGER stop")
    assert store.delete(username="alice") == 250
    assert on_disk(tokens_folder) == []


def test_a_deleted_token_leaves_no_trace_in_the_files(open_store: OpenStore, tokens_folder: Path) -> None:
    """After the store is closed; SQLite's default is to leave the bytes in freed space."""
    store = open_store()
    store.store("alice", "kept-kept-kept-kept", None)
    store.store("alice", "gone-gone-gone-gone", None)
    store.delete(token="gone-gone-gone-gone")
    store.close()
    everything = b"".join(path.read_bytes() for path in tokens_folder.rglob("*") if path.is_file())
    assert b"kept-kept-kept-kept" in everything
    assert b"gone-gone-gone-gone" not in everything


def test_files_and_threads_stay_flat(open_store: OpenStore) -> None:
    """Left to itself diskcache opens a connection for each thread that calls it, and keeps it."""
    store = open_store()
    counts = set()
    for number in range(1_000):
        threading.Thread(target=store.store, args=("alice", f"token-{number % 7}", 60)).run()
        caller = threading.Thread(target=store.delete, kwargs={"token": f"token-{number % 5}"})
        caller.start()
        caller.join()
        store.lookup("token-1")
        counts.add((open_files(), threading.active_count()))
    assert len(counts) == 1


# Modes


def test_everything_is_private_whatever_the_umask(open_store: OpenStore, tokens_folder: Path) -> None:
    """The folder 0700; database, write-ahead log and shared memory 0600."""
    umask = os.umask(0)
    try:
        store = open_store()
        store.store("alice", "secret-token", None)
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tokens_folder, *tokens_folder.iterdir())}
    finally:
        os.umask(umask)
    assert modes == {"tokens": "0o700", "cache.db": "0o600", "cache.db-wal": "0o600", "cache.db-shm": "0o600"}


def test_a_folder_open_to_others_is_refused(open_store: OpenStore, tokens_folder: Path) -> None:
    """They may have been in already, so it is not mended silently."""
    tokens_folder.mkdir()
    tokens_folder.chmod(0o755)
    with pytest.raises(EnvironmentFolderError, match=r"chmod 700 "):
        open_store()
    tokens_folder.chmod(0o700)
    open_store()


def test_no_fault_is_logged_with_a_token(
    open_store: OpenStore, tokens_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does any error's text or cause name one."""
    caplog.set_level(logging.DEBUG)
    store = open_store()
    with stranger(tokens_folder) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TokenStoreBusyError) as refused:
            store.store("alice", "secret-token", None)
    assert "secret-token" not in caplog.text + str(refused.value) + repr(refused.value.__cause__)
