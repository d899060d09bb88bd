"""Commit hooks: called once, before the commit, and able to refuse the change."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from nfcli.models.errors import NfcliError, TokenOwnerError, TokenStoreError, TokenStoreFullError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.changes import TokenChange
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]
Fields = tuple[str, str, float, float | None]
Contents = tuple[str, list[Fields]]


def contents(store: TokenStore) -> list[Fields]:
    """Return all live records of a store."""
    return [fields(record) for record in store.records()]


def fields(record: BearerTokenRecord) -> Fields:
    """Return the fields of a record."""
    return record.token, record.username, record.created, record.expires


def contents_of(change: TokenChange) -> Contents:
    """Return the contents of a change."""
    return change.operation, [fields(record) for record in change.records]


class RefusedError(NfcliError):
    """A commit hook's refusal."""


@pytest.fixture
def store(open_store: OpenStore) -> TokenStore:
    """Open a store with two tokens of alice's and one of bob's."""
    store = open_store()
    for username, token in (("alice", "a1"), ("alice", "a2"), ("bob", "b1")):
        store_token(store, username, token, 10)
    return store


@pytest.fixture
def rows(store: TokenStore) -> Callable[[], int]:
    """Count the rows as the open transaction has them; in the store's thread only."""
    statement = "SELECT count(*) FROM Cache WHERE key LIKE 'bearer%'"
    return lambda: int(store.database.cache.connection.execute(statement).fetchone()[0])


def test_a_commit_hook_gets_each_change_once(store: TokenStore, clock: SimpleNamespace) -> None:
    """It gets the operation and the records, all of them for a deletion."""
    heard: list[Contents] = []
    start = clock.now

    def before_commit(change: TokenChange) -> None:
        heard.append(contents_of(change))

    store_token(store, "alice", "a3", None, before_commit=before_commit)
    store_token(store, "alice", "a1", 20, before_commit=before_commit)
    delete_tokens(store, token="a2", before_commit=before_commit)
    delete_tokens(store, username="alice", before_commit=before_commit)
    assert heard == [
        ("create", [("a3", "alice", start, None)]),
        ("renew", [("a1", "alice", start, start + 20)]),
        ("delete", [("a2", "alice", start, start + 10)]),
        ("delete", [("a1", "alice", start, start + 20), ("a3", "alice", start, None)]),
    ]


def test_a_commit_hook_is_not_called_when_nothing_changes(store: TokenStore, clock: SimpleNamespace) -> None:
    """Nothing matched, what matched has expired, another user's token, a sweep."""
    heard: list[TokenChange] = []
    for arguments in ({"token": "c1"}, {"username": "carol"}, {"username": "bob", "token": "a1"}, {}):
        assert delete_tokens(store, **arguments, before_commit=heard.append) == 0
    with pytest.raises(TokenOwnerError):
        store_token(store, "bob", "a1", None, before_commit=heard.append)
    clock.now += 10
    assert delete_tokens(store, username="alice", before_commit=heard.append) == 0
    assert store.sweep() == 1
    assert heard == []


def test_an_expired_token_that_is_stored_again_is_a_creation(store: TokenStore, clock: SimpleNamespace) -> None:
    """Also when another user had it; a deletion's change holds the live tokens only."""
    heard: list[Contents] = []
    clock.now += 10
    store_token(store, "alice", "live", None)
    store_token(store, "alice", "b1", None, before_commit=lambda change: heard.append(contents_of(change)))
    store_token(store, "alice", "a1", None, before_commit=lambda change: heard.append(contents_of(change)))
    assert delete_tokens(store, username="alice", before_commit=lambda change: heard.append(contents_of(change))) == 3
    assert heard == [
        ("create", [("b1", "alice", clock.now, None)]),
        ("create", [("a1", "alice", clock.now, None)]),
        ("delete", [(token, "alice", clock.now, None) for token in heard_tokens(heard[-1])]),
    ]
    assert sorted(heard_tokens(heard[-1])) == ["a1", "b1", "live"]


def heard_tokens(one: Contents) -> list[str]:
    """Return the tokens that commit hooks got."""
    return [record[0] for record in one[1]]


def test_a_commit_hook_runs_between_the_rows_and_the_commit(
    store: TokenStore, raw_database: RawDatabase, rows: Callable[[], int]
) -> None:
    """The rows are in the open transaction; other connections and look-ups don't see them."""
    seen: list[tuple[int, int, bool]] = []

    def before_commit(change: TokenChange) -> None:
        seen.append((rows(), len(raw_database.keys()), store.lookup(change.records[0].token) is not None))

    store_token(store, "alice", "a3", None, before_commit=before_commit)
    delete_tokens(store, username="alice", before_commit=before_commit)
    assert seen == [(4, 3, False), (1, 4, True)]


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("no line can be added"),
        OSError(28, "No space left on device"),
        sqlite3.OperationalError("disk I/O error"),
        TokenStoreFullError("a full disk, but not the store's"),
        ValueError("an error in the hook"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_a_commit_hook_rolls_back_and_reaches_the_caller(
    store: TokenStore, raw_database: RawDatabase, open_store: OpenStore, error: Exception
) -> None:
    """The caller gets the same object; memory and disk are unchanged, no listener is called, and the store works."""
    before, keys = contents(store), raw_database.keys()
    calls: list[TokenChange] = []
    revoked: list[object] = []
    store.on_revoked.append(revoked.append)

    def refuse(change: TokenChange) -> None:
        calls.append(change)
        raise error

    writes = [
        lambda: store_token(store, "alice", "a3", None, before_commit=refuse),
        lambda: store_token(store, "alice", "a1", 500, before_commit=refuse),
        lambda: delete_tokens(store, token="a1", before_commit=refuse),
        lambda: delete_tokens(store, username="alice", before_commit=refuse),
    ]
    # A full disk doesn't keep tokens from being revoked.
    for write in writes[:2] if isinstance(error, TokenStoreFullError) else writes:
        calls.clear()
        with pytest.raises(type(error)) as raised:
            write()
        assert raised.value is error
        assert (contents(store), raw_database.keys(), len(calls), revoked) == (before, keys, 1, [])
    store_token(store, "carol", "c1", None)
    assert delete_tokens(store, username="alice") == 2
    expected = contents(store)
    store.close()
    assert contents(open_store()) == expected


def test_the_cause_of_a_refusal_is_kept(store: TokenStore) -> None:
    """Its cause is kept for logs."""

    def refuse(_change: TokenChange) -> None:
        raise RefusedError("no line can be added") from OSError(28, "No space left on device")

    with pytest.raises(RefusedError) as raised:
        delete_tokens(store, username="alice", before_commit=refuse)
    assert isinstance(raised.value.__cause__, OSError)


@contextmanager
def failing_commits(store: TokenStore, monkeypatch: pytest.MonkeyPatch, *, count: int) -> Iterator[None]:
    """Have the next commits fail as on a full disk: all of them are tried when the rows are written."""
    cache = store.database.cache
    transact, left = cache.transact, [count]

    @contextmanager
    def fail(*, retry: bool) -> Iterator[None]:
        with transact(retry=retry):
            yield
            if left[0]:
                left[0] -= 1
                # Within the transaction, so diskcache rolls back as it does when COMMIT fails.
                cache.connection.execute("PRAGMA max_page_count = 1")
                cache.connection.execute("CREATE TABLE too_much AS SELECT hex(randomblob(100000)) AS text")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "transact", fail)
        try:
            yield
        finally:
            store.run(lambda: cache.connection.execute("PRAGMA max_page_count = 100000"))


@pytest.mark.parametrize(("failures", "is_done"), [(1, True), (2, False)])
def test_a_write_that_is_retried_calls_its_hook_once(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch, *, failures: int, is_done: bool
) -> None:
    """A write is retried once on a full disk; if that fails too, the store's own error is raised."""
    calls: list[TokenChange] = []
    before = contents(store)
    with failing_commits(store, monkeypatch, count=failures):
        if is_done:
            assert delete_tokens(store, token="a1", before_commit=calls.append) == 1
        else:
            with pytest.raises(TokenStoreFullError):
                store_token(store, "alice", "a3", None, before_commit=calls.append)
    assert len(calls) == 1
    assert len(contents(store)) == len(before) - is_done


def test_a_commit_that_fails_after_the_hook_is_the_stores_error(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change that the hook got isn't made, and the caller gets an error."""
    cache = store.database.cache
    calls: list[TokenChange] = []
    before = contents(store)

    @contextmanager
    def transact(*, retry: bool) -> Iterator[None]:
        assert not retry
        cache.connection.execute("BEGIN IMMEDIATE")
        yield
        cache.connection.execute("COMMIT AND FAIL")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "transact", transact)
        with pytest.raises(TokenStoreError):
            delete_tokens(store, token="a1", before_commit=calls.append)
    assert (len(calls), contents(store)) == (1, before)
