"""The backup and restore tasks, run through the registry on a real store."""

from __future__ import annotations

import base64
import hashlib
import pickle
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import TokenStoreBusyError
from nfcli.models.tasks import backup as wire
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import backup as backup_tasks
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tokens.transfers import IDLE_SECONDS, Transfers
from support.task_context import task_context
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

Rows = list[tuple[str, str, float, float | None]]
BUSY = "another backup of this worker is in progress"
GONE = "this {} is no longer in progress"
DAMAGED = "the backup is damaged or no token database, nothing changed: use another one"
OTHER = "upload does not match the announced size or checksum, nothing changed: restore again"


class Desk:
    """A worker without sockets, and a client of its tasks. `ticks` is the clock by which transfers expire."""

    def __init__(self, worker: TaskContext, ticks: SimpleNamespace) -> None:
        self.worker = worker
        self.ticks = ticks
        self.run_folder = worker.environment.run_folder

    def run(self, task: str, **kwargs: object) -> Any:
        """Run a task that has to succeed; return its value."""
        result = self.worker.registry.run(self.worker, task, kwargs)
        assert (result.failed, result.errors) == (False, [])
        return result.result

    def refusal(self, task: str, **kwargs: object) -> str:
        """Run a task that has to fail; return its one error."""
        result = self.worker.registry.run(self.worker, task, kwargs)
        assert (result.failed, result.result) == (True, None)
        (error,) = result.errors
        assert str(self.run_folder / "w1.restore") not in error
        return error

    def rows(self) -> Rows:
        """Return all live tokens of the worker."""
        return rows(self.worker.store)

    def fetched(self) -> bytes:
        """Back up; return the database. `seal` is that of the latest backup."""
        begun = self.run("backup_begin")
        self.seal = begun["seal"]
        parts = []
        while part := base64.b64decode(self.run("backup_read", id=begun["id"], offset=sum(map(len, parts)))):
            parts.append(part)
        database = b"".join(parts)
        assert (begun["size"], begun["sha256"]) == (len(database), hashlib.sha256(database).hexdigest())
        assert self.run("backup_end", id=begun["id"]) is True
        return database

    def begin(self, database: bytes, **instead: object) -> str:
        """Announce a database; return the upload's id."""
        announced = {
            "size": len(database),
            "sha256": hashlib.sha256(database).hexdigest(),
            "unverified": True,
            **instead,
        }
        return str(self.run("restore_begin", **announced)["id"])

    def upload(self, database: bytes, **instead: object) -> str:
        """Announce a database and send it; return the upload's id."""
        upload_id = self.begin(database, **instead)
        for offset in range(0, len(database), wire.CHUNK_BYTES):
            self.run("restore_write", id=upload_id, offset=offset, data=chunk(database, offset))
        return upload_id

    def files(self) -> dict[str, str]:
        """Return the modes of what is in the worker's run folder."""
        return {
            path.relative_to(self.run_folder).as_posix(): f"{stat.S_IMODE(path.stat().st_mode):04o}"
            for path in sorted(self.run_folder.rglob("*"))
        }


def rows(store: TokenStore) -> Rows:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def chunk(database: bytes, offset: int = 0) -> str:
    """Return an encoded chunk."""
    return base64.b64encode(database[offset : offset + wire.CHUNK_BYTES]).decode()


@pytest.fixture
def desk(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> Desk:
    """Provide a worker with three tokens."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    ticks = SimpleNamespace(now=1000.0)
    worker = task_context(
        environment,
        TaskRegistry(backup_tasks),
        open_store(),
        trail,
        client="ann-laptop",
        transfers=Transfers(environment.run_folder, "w1", lambda: ticks.now),
    )
    for username, token, expire in (("alice", "a1", None), ("alice", "a2", 100), ("bob", "b1", 1000)):
        store_token(worker.store, username, token, expire)
    return Desk(worker, ticks)


def test_no_task_is_a_tool_and_none_takes_a_path(desk: Desk) -> None:
    """An authorized client must not make the worker read or write files of its choice."""
    specs = {spec.name: (spec.mcp, sorted(spec.input_model.model_fields)) for spec in desk.worker.registry}
    assert specs == {
        "backup_begin": (None, []),
        "backup_end": (None, ["id"]),
        "backup_read": (None, ["id", "offset"]),
        "restore_begin": (None, ["seal", "sha256", "size", "unverified"]),
        "restore_commit": (None, ["id"]),
        "restore_write": (None, ["data", "id", "offset"]),
    }
    assert desk.refusal("backup_begin", path="/etc/shadow") == "path: no such field"
    assert desk.refusal("backup_read", id="../" * 10 + "aa", offset=0).startswith("id: String should match pattern")


def test_a_restore_brings_back_the_tokens_of_the_backup(desk: Desk, clock: SimpleNamespace) -> None:
    """With creation and expiry; later tokens are removed, and tokens that expired meanwhile are skipped."""
    before = desk.rows()
    database = desk.fetched()
    revoked: list[list[str]] = []
    desk.worker.store.on_revoked.append(lambda tokens: revoked.append(sorted(tokens)))
    clock.now += 100
    clock.ticks += 100
    store_token(desk.worker.store, "mallory", "late", None)
    delete_tokens(desk.worker.store, token="a1")
    revoked.clear()
    restored = desk.run("restore_commit", id=desk.upload(database))
    assert restored == {"restored": 2, "removed": 1, "expired": 1}
    assert desk.rows() == [row for row in before if row[0] != "a2"]
    assert "late" in revoked[-1]
    assert desk.worker.store.lookup("late") is None
    assert desk.files() == {}


def test_the_audit_trail_records_a_backup_and_a_restore(desk: Desk) -> None:
    """The lines have the actor and the number of tokens."""
    database = desk.fetched()
    desk.run("restore_commit", id=desk.upload(database, seal=desk.seal, unverified=False))
    desk.run("restore_commit", id=desk.upload(database))
    told = [
        (line.operation, line.actor, line.count, line.outcome, line.reason) for line in desk.worker.audit.entries(9)
    ]
    assert told == [
        ("backup", "ann-laptop", 3, "done", None),
        ("restore", "ann-laptop", 3, "done", None),
        ("restore", "ann-laptop", 3, "done", "the seal of the backup was not verified"),
    ]


def test_without_a_line_in_the_audit_trail_nothing_leaves_and_nothing_is_replaced(desk: Desk) -> None:
    """A snapshot is not available, a restore is rolled back."""
    database = desk.fetched()
    store_token(desk.worker.store, "mallory", "late", None)
    before = desk.rows()
    upload_id = desk.upload(database)
    desk.worker.audit.close()
    refusal = desk.refusal("backup_begin")
    assert "is closed" in refusal
    assert desk.refusal("restore_commit", id=upload_id) == refusal
    assert (desk.rows(), desk.files()) == (before, {})


def test_transfers_are_private_and_removed_at_the_end(desk: Desk) -> None:
    """Their files contain tokens in the clear."""
    begun = desk.run("backup_begin")
    upload_id = desk.begin(b"x" * 10)
    assert desk.files() == {
        "w1.backup": "0700",
        "w1.backup/tokens.db": "0600",
        "w1.restore": "0700",
        "w1.restore/tokens.db": "0600",
    }
    desk.run("backup_end", id=begun["id"])
    assert desk.refusal("restore_commit", id=upload_id) == OTHER
    assert desk.files() == {}


def test_the_stop_of_a_worker_and_the_start_of_the_next_remove_what_was_left(desk: Desk) -> None:
    """Also when the previous worker was killed."""
    desk.run("backup_begin")
    desk.begin(b"x")
    desk.worker.transfers.close()
    assert desk.files() == {}
    folder = desk.run_folder / "w1.backup"
    folder.mkdir()
    (folder / "tokens.db-journal").touch()
    Transfers(desk.run_folder, desk.worker.name).close()
    assert desk.files() == {}


def test_one_transfer_at_a_time_until_it_expires(desk: Desk) -> None:
    """The other kind of transfer is independent."""
    first = desk.run("backup_begin")["id"]
    assert desk.refusal("backup_begin").startswith(BUSY)
    desk.begin(b"x")
    desk.ticks.now += IDLE_SECONDS
    assert desk.run("backup_begin")["id"] != first
    assert desk.refusal("backup_read", id=first, offset=0).startswith(GONE.format("backup"))
    desk.ticks.now += IDLE_SECONDS
    desk.worker.transfers.expire()
    assert desk.files() == {}


def test_an_id_ends_with_its_transfer(desk: Desk) -> None:
    """The id of a backup is not valid for a restore."""
    begun = desk.run("backup_begin")
    assert desk.refusal("restore_commit", id=begun["id"]).startswith(GONE.format("restore"))
    desk.run("backup_end", id=begun["id"])
    assert desk.refusal("backup_read", id=begun["id"], offset=0).startswith(GONE.format("backup"))
    assert desk.refusal("backup_end", id=begun["id"]).startswith(GONE.format("backup"))


def test_chunks_may_come_again_and_in_any_order(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not sure of a chunk repeats it."""
    monkeypatch.setattr(wire, "CHUNK_BYTES", 4096)
    database = desk.fetched()
    before = desk.rows()
    delete_tokens(desk.worker.store, username="alice")
    upload_id = desk.begin(database)
    offsets = list(range(0, len(database), 4096))
    for offset in [*reversed(offsets), *offsets[:3]]:
        desk.run("restore_write", id=upload_id, offset=offset, data=chunk(database, offset))
    assert desk.run("restore_commit", id=upload_id) == {"restored": 3, "removed": 0, "expired": 0}
    assert desk.rows() == before


def test_a_missing_chunk_is_detected(desk: Desk) -> None:
    """At any position; a flipped bit as well."""
    database = desk.fetched()
    flipped = database[:5000] + bytes([database[5000] ^ 1]) + database[5001:]
    sha256 = hashlib.sha256(database).hexdigest()
    before = desk.rows()
    for sent in (database[:-1], database[1:], b"", flipped):
        upload_id = desk.begin(sent, size=len(database), sha256=sha256)
        desk.run("restore_write", id=upload_id, offset=0, data=chunk(sent))
        assert desk.refusal("restore_commit", id=upload_id) == OTHER
        assert (desk.rows(), desk.files()) == (before, {})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"size": 0}, "size: must be 1 or more"),
        ({"size": wire.MAX_BACKUP_BYTES + 1}, f"size: must be {wire.MAX_BACKUP_BYTES} or less"),
        ({"sha256": "x"}, "sha256: String should match pattern '^[0-9a-f]{64}$'"),
    ],
)
def test_what_a_restore_announces_is_bounded(desk: Desk, arguments: dict[str, object], error: str) -> None:
    """A client can't fill the disk by announcing a large database."""
    assert desk.refusal("restore_begin", **{"size": 1, "sha256": "0" * 64, **arguments}) == error
    assert desk.files() == {}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"offset": 2, "data": "eHh4"}, "offset: the chunk ends after the announced 4 bytes"),
        ({"offset": -1}, "offset: must be 0 or more"),
        ({"data": "e"}, "data: must be Base64"),
        ({"data": "e\u00fc=="}, "data: must be Base64"),
        (
            {"data": "e" * (wire.CHUNK_CHARACTERS + 1)},
            f"data: must have at most {wire.CHUNK_CHARACTERS} characters",
        ),
    ],
)
def test_a_chunk_must_fit_the_announcement(desk: Desk, arguments: dict[str, object], error: str) -> None:
    """It is refused, and the upload continues."""
    upload_id = desk.begin(b"xxxx")
    assert desk.refusal("restore_write", **{"id": upload_id, "offset": 0, "data": "eA==", **arguments}) == error
    assert desk.run("restore_write", id=upload_id, offset=0, data="eA==") is True


def changed(database: bytes, *statements: str) -> bytes:
    """Return a database after SQL statements that ignore the store's rules."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if database:
            connection.deserialize(database)
        for statement in statements:
            connection.execute(statement)
        return connection.serialize()


PICKLE = f"X'{pickle.dumps(1).hex()}'"
ALL_WRONG = "the backup has rows but no valid token, nothing changed: use another one"
NOT_OURS = {
    "nothing but a head": (lambda database: database[:100], DAMAGED),
    "text": (lambda _: b"no database\n" * 1000, DAMAGED),
    "cut short": (lambda database: database[: len(database) // 2], DAMAGED),
    "zeros in the middle": (lambda database: database[:4096] + bytes(8192) + database[12288:], DAMAGED),
    "another program's": (lambda _: changed(b"", "CREATE TABLE Notes(text)", "INSERT INTO Notes VALUES('x')"), DAMAGED),
    "empty": (lambda _: changed(b"", "CREATE TABLE x(y)", "DROP TABLE x"), DAMAGED),
    "a view": (
        lambda _: changed(b"", "CREATE VIEW Cache AS SELECT 'bearer_token::x' AS key, 1 AS raw"),
        DAMAGED,
    ),
    "rows of others": (lambda database: changed(database, "UPDATE Cache SET value = 'x'"), ALL_WRONG),
    "pickles": (
        lambda database: changed(database, f"UPDATE Cache SET mode = 4, value = {PICKLE}"),  # noqa: S608  a constant
        ALL_WRONG,
    ),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_what_is_no_backup_changes_nothing(desk: Desk, kind: str) -> None:
    """The error names no file of the worker, and the upload is removed."""
    spoil, error = NOT_OURS[kind]
    database = spoil(desk.fetched())
    before = desk.rows()
    assert desk.refusal("restore_commit", id=desk.upload(database)) == error
    assert (desk.rows(), desk.files()) == (before, {})


def test_invalid_rows_among_valid_ones_are_skipped_and_counted(desk: Desk) -> None:
    """A pickle, an invalid user name, and a token that two rows have, the index being removed."""
    database = changed(
        desk.fetched(),
        "UPDATE Cache SET value = replace(value, 'bob', char(27)), tag = char(27) WHERE tag = 'bob'",
        f"UPDATE Cache SET mode = 4, value = {PICKLE} WHERE key = 'bearer_token::a2'",  # noqa: S608  a constant
        "DROP INDEX Cache_key_raw",
        "INSERT INTO Cache(key, raw, tag, value, mode) "
        "SELECT key, raw, tag, value, mode FROM Cache WHERE key = 'bearer_token::a1'",
    )
    result = desk.worker.registry.run(desk.worker, "restore_commit", {"id": desk.upload(database)})
    assert (result.failed, result.errors, result.result, result.messages) == (
        False,
        [],
        {"restored": 1, "removed": 2, "expired": 0},
        ["the seal of the backup was not verified", "skipped rows of the backup that hold no valid token: 3"],
    )
    assert [row[:2] for row in desk.rows()] == [("a1", "alice")]


def test_a_backup_of_a_locked_database_fails_and_leaves_nothing(desk: Desk, raw_database: RawDatabase) -> None:
    """So does a restore; both work afterwards."""
    database = desk.fetched()
    upload_id = desk.upload(database)
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TokenStoreBusyError) as busy:
            store_token(desk.worker.store, "mallory", "late", None)
        assert desk.refusal("restore_commit", id=upload_id) == str(busy.value)
        assert desk.files() == {}
        other.execute("ROLLBACK")
    assert desk.run("restore_commit", id=desk.upload(desk.fetched())) == {"restored": 3, "removed": 0, "expired": 0}


def test_a_file_in_place_of_the_transfer_s_folder_is_reported(desk: Desk) -> None:
    """The message names it."""
    (desk.run_folder / "w1.backup").touch(mode=0o600)
    assert desk.refusal("backup_begin") == f"{desk.run_folder / 'w1.backup'} must be a folder: move away what is there"


def test_a_database_that_is_too_large_is_not_sent(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first task fails, not the last chunk."""
    monkeypatch.setattr(backup_tasks, "MAX_BACKUP_BYTES", 1000)
    copy = tmp_path / "copy.db"
    desk.worker.store.backup(copy)
    size = copy.stat().st_size
    error = f"the token database has {size} bytes, more than the limit of a backup (1000)"
    assert desk.refusal("backup_begin") == error
    assert desk.files() == {}


def test_a_message_with_a_full_chunk_fits_the_limit() -> None:
    """The worker refuses messages of more than 1 MiB."""
    assert len(chunk(b"x" * wire.CHUNK_BYTES)) == wire.CHUNK_CHARACTERS
    assert wire.CHUNK_CHARACTERS + 1024 < 1024 * 1024
