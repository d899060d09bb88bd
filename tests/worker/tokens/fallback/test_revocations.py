"""Deletions that the disk refuses: the token is revoked all the same, and stays so."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.errors import (
    AuditDiskError,
    AuditError,
    RevocationPendingError,
    TokenStoreBusyError,
    TokenStoreDiskError,
    TokenStoreFullError,
    TokenStoreReadOnlyError,
)
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.tokens.backup import read_backup
from nfcli.worker.tokens.changes import TokenChange
from nfcli.worker.tokens.fallback.disk_space import RESERVE_BYTES, Reserve
from nfcli.worker.tokens.store import TokenStore
from support.small_disk import fill, small_disk
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, pragma, store_token

OpenStore = Callable[[], TokenStore]
KEY = bytes(32)
REVOKED = "revoked, also after a restart, and not yet removed from disk: "
NOT_RECORDED = "revoked until the worker ends, and not yet removed from disk: "


@pytest.fixture
def disk(tokens_folder: Path) -> Iterator[Path]:
    """Mount a small file system where the token database is."""
    with small_disk(tokens_folder, size="2m"):
        yield tokens_folder


@pytest.fixture
def store(open_store: OpenStore) -> TokenStore:
    """Open a store with tokens of two users."""
    store = open_store()
    for username, token in (("alice", "a1"), ("alice", "a2"), ("bob", "b1")):
        store_token(store, username, token, None)
    return store


def live(store: TokenStore) -> list[str]:
    """Return the tokens that look-ups find."""
    return [record.token for record in store.records()]


def fill_up(store: TokenStore, disk: Path) -> None:
    """Leave no byte, in files that are open neither, and nothing that is kept back."""
    pragma(store, "wal_checkpoint(TRUNCATE)")
    Reserve(disk).release()
    fill(disk)


def refuse(store: TokenStore, **what: str) -> str:
    """Delete tokens that the disk refuses to delete; return the message."""
    with pytest.raises(RevocationPendingError) as caught:
        delete_tokens(store, **what)
    return str(caught.value)


def test_a_full_disk_does_not_keep_a_token(request: pytest.FixtureRequest, disk: Path, tmp_path: Path) -> None:
    """Space is kept back for the removal and for its line in the audit trail: the answer is the usual one."""
    trail = AuditTrail(disk / "audit.jsonl", KEY)
    store: TokenStore = request.getfixturevalue("store")
    hook = trail.before_commit("ann")
    pragma(store, "wal_checkpoint(TRUNCATE)")
    fill(disk)

    def store_until_refused() -> None:
        for number in range(100):  # the last page of a file may have room
            store_token(store, "carol", f"c{number}", None, before_commit=hook)
            fill(disk)

    with pytest.raises((TokenStoreFullError, AuditDiskError), match=r" nothing changed: make room on it"):
        store_until_refused()
    assert delete_tokens(store, username="alice", before_commit=hook) == 2
    assert "alice" not in store.usernames()
    fill(disk)
    assert "is full: make room on it" in str(store.revocations.problem())
    trail.close()
    lines = (disk / "audit.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["operation"] == "delete"
    store.backup(tmp_path / "copy.db")
    assert not {"a1", "a2"} & {record.token for record in read_backup(tmp_path / "copy.db").records}


@pytest.mark.parametrize("what", [{"token": "a1"}, {"username": "alice"}, {"username": "alice", "token": "a1"}])
def test_no_byte_is_left(
    request: pytest.FixtureRequest, disk: Path, raw_database: RawDatabase, what: dict[str, str]
) -> None:
    """Look-ups don't find the token, listeners hear of it, and the message is honest; also after a restart."""
    store: TokenStore = request.getfixturevalue("store")
    revoked: list[object] = []
    store.on_revoked.append(revoked.extend)
    gone = ["a1"] if "token" in what else ["a1", "a2"]
    fill_up(store, disk)
    message = refuse(store, **what)
    assert message == f"{REVOKED}the disk of {disk} is full: make room on it; the worker then removes it"
    left = [token for token in ("a1", "a2", "b1") if token not in gone]
    assert (live(store), revoked) == (left, gone)
    for change in (
        lambda: store_token(store, "alice", "a1", None),
        lambda: store.replace([BearerTokenRecord("r1", "rita", 0.0, None)], before_commit=None),
        lambda: store.import_tokens([BearerTokenRecord("r1", "rita", 0.0, None)], before_commit=None),
        lambda: store.backup(disk.parent / "copy.db"),
    ):
        with pytest.raises(TokenStoreFullError, match=r", nothing changed: make room on it$"):
            change()
    problem = store.revocations.problem()
    assert problem == (
        f"tokens revoked and not yet removed from disk: {len(gone)}: the disk of {disk} is full: make room on it"
    )
    store.run(store.database.close)  # as a killed process leaves it
    (disk / "ballast").unlink()
    assert len(raw_database.keys()) == 3
    changes: list[TokenChange] = []
    again = TokenStore(disk, recovery=changes.append)
    assert live(again) == left
    assert len(raw_database.keys()) == len(left)
    assert [(change.operation, [record.token for record in change.records]) for change in changes] == [("delete", gone)]
    assert again.revocations.is_settled
    store_token(again, "alice", "a1", None)
    again.close()
    with TokenStore(disk) as third:
        assert "a1" in live(third)


def test_room_on_the_disk_completes_what_is_pending(
    request: pytest.FixtureRequest, disk: Path, raw_database: RawDatabase
) -> None:
    """In the order of the deletions, with the line of each in the audit trail, and space is kept back again."""
    store: TokenStore = request.getfixturevalue("store")
    changes: list[TokenChange] = []
    fill_up(store, disk)
    for token in ("a1", "b1"):
        with pytest.raises(RevocationPendingError):
            delete_tokens(store, token=token, before_commit=changes.append)
    store.run(store.revocations.maintain)
    assert (store.revocations.pending, len(raw_database.keys())) == (2, 3)
    (disk / "ballast").unlink()
    store.run(store.revocations.maintain)
    assert (store.revocations.is_settled, store.revocations.problem()) == (True, None)
    assert [change.records[0].token for change in changes] == ["a1", "b1"]
    assert len(raw_database.keys()) == 1
    assert (disk / "reserve").stat().st_size == RESERVE_BYTES
    assert not any((disk / "revoked").read_bytes())


def test_storing_a_token_completes_what_is_pending_first(
    request: pytest.FixtureRequest, disk: Path, open_store: OpenStore
) -> None:
    """A token that is deleted and stored again isn't removed later."""
    store: TokenStore = request.getfixturevalue("store")
    fill_up(store, disk)
    refuse(store, token="a1")
    (disk / "ballast").unlink()
    store_token(store, "bob", "a1", None)
    store.close()
    assert live(open_store()) == ["a2", "b1", "a1"]


def test_a_disk_that_takes_no_byte_at_all(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal can't be written either, and the message says what a restart would do."""
    pragma(store, "query_only = 1")

    def refuse_write(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse_write)
        message = refuse(store, token="a1")
    assert message.startswith(NOT_RECORDED)
    assert message.endswith("; the worker then removes it, don't restart it before")
    assert live(store) == ["a2", "b1"]
    assert str(store.revocations.problem()).startswith("tokens revoked and not yet removed from disk: 1: ")
    pragma(store, "query_only = 0")
    store.run(store.revocations.maintain)
    assert store.revocations.problem() is None


def test_a_database_that_turns_read_only(store: TokenStore, raw_database: RawDatabase) -> None:
    """SQLite refuses, the journal doesn't."""
    pragma(store, "query_only = 1")
    assert refuse(store, token="a1").startswith(REVOKED)
    with pytest.raises(TokenStoreReadOnlyError):
        store_token(store, "carol", "c1", None)
    assert live(store) == ["a2", "b1"]
    pragma(store, "query_only = 0")
    store.run(store.revocations.maintain)
    assert len(raw_database.keys()) == 2


@pytest.mark.parametrize("error", [TokenStoreDiskError("quota"), AuditDiskError("no line")])
def test_every_refusal_of_a_disk_revokes(store: TokenStore, error: Exception) -> None:
    """Quotas and failing disks, of the audit trail too; its line is written once the disk allows it, once."""
    calls: list[TokenChange] = []
    refusals = [error, error]

    def hook(change: TokenChange) -> None:
        if refusals:
            raise refusals.pop()
        calls.append(change)

    with pytest.raises(RevocationPendingError, match=str(error)):
        delete_tokens(store, token="a1", before_commit=hook)
    assert (live(store), calls) == (["a2", "b1"], [])
    store.run(store.revocations.maintain)
    assert [change.operation for change in calls] == ["delete"]
    assert store.revocations.is_settled


@pytest.mark.parametrize("error", [TokenStoreBusyError("busy"), AuditError("altered")])
def test_other_refusals_change_nothing(store: TokenStore, error: Exception) -> None:
    """Another process holds the database, or the trail was altered: somebody has to look first."""

    def refuse(_: TokenChange) -> None:
        raise error

    with pytest.raises(type(error)):
        delete_tokens(store, token="a1", before_commit=refuse)
    assert live(store) == ["a1", "a2", "b1"]
    assert store.revocations.is_settled


def test_a_full_disk_at_the_start(request: pytest.FixtureRequest, disk: Path, open_store: OpenStore) -> None:
    """The space that is kept back lets the worker start, and revoke."""
    store: TokenStore = request.getfixturevalue("store")
    store.close()
    fill(disk)
    again = open_store()
    assert live(again) == ["a1", "a2", "b1"]
    try:
        assert delete_tokens(again, token="a1") == 1
    except RevocationPendingError as error:
        assert str(error).startswith(REVOKED)  # noqa: PT017  either way is right
    assert live(again) == ["a2", "b1"]


def test_a_damaged_journal_revokes_nothing_else(store: TokenStore, tokens_folder: Path, clock: SimpleNamespace) -> None:
    """Slots whose checksum is wrong are ignored, whatever they hold."""
    store.close()
    file = tokens_folder / "revoked"
    file.write_bytes(os.urandom(file.stat().st_size))
    with TokenStore(tokens_folder, clock=lambda: clock.now) as again:
        assert live(again) == ["a1", "a2", "b1"]
        assert again.revocations.is_settled


@pytest.mark.parametrize("name", ["reserve", "revoked"])
def test_space_that_is_not_kept_back_is_a_problem(store: TokenStore, tokens_folder: Path, name: str) -> None:
    """The next deletion on a full disk might not be recorded; it is kept back again as soon as there is room."""
    revocations = store.revocations
    assert (revocations.is_settled, revocations.problem(), revocations.problem(is_thorough=True)) == (True, None, None)
    (tokens_folder / name).unlink()
    assert not revocations.is_settled
    assert revocations.problem() == (
        f"no space is kept back for revocations on the disk of {tokens_folder}: make room on it"
    )
    store.run(revocations.maintain)
    assert (revocations.is_settled, revocations.problem()) == (True, None)
