"""Putting other tokens in the place of all that are stored: in one step, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from nfcli.models.errors import TokenStoreBusyError, TokenStoreDamagedError, TokenStoreError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.changes import ReplaceResult, TokenChange
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

pytestmark = pytest.mark.slow

OpenStore = Callable[[], TokenStore]
Fields = tuple[str, str, float, float | None]


def contents(store: TokenStore) -> list[Fields]:
    """Return all live records of a store."""
    return [fields(record) for record in store.records()]


def fields(record: BearerTokenRecord) -> Fields:
    """Return the fields of a record."""
    return record.token, record.username, record.created, record.expires


@pytest.fixture
def store(open_store: OpenStore, clock: SimpleNamespace) -> TokenStore:
    """Open a store with tokens of three users, one of which has expired."""
    store = open_store()
    for username, token, expire in (
        ("alice", "a1", None),
        ("alice", "a2", 100),
        ("bob", "b1", 100),
        ("carol", "c1", 10),
    ):
        store_token(store, username, token, expire)
    clock.now += 20
    return store


@pytest.fixture
def others(clock: SimpleNamespace) -> list[BearerTokenRecord]:
    """Return what is put in their place: one kept, one changed, one of another user's, a new one, an expired one."""
    now = clock.now
    return [
        BearerTokenRecord("a1", "alice", now - 5000.5, None),
        BearerTokenRecord("a2", "alice", now - 4000.123456, now + 7),
        BearerTokenRecord("b1", "alice", now - 3000, None),
        BearerTokenRecord("d1", "dave", now - 2000, now + 0.25),
        BearerTokenRecord("gone", "dave", now - 1000, now),
    ]


def test_exactly_the_given_live_tokens_are_there_afterwards(
    store: TokenStore, others: list[BearerTokenRecord], open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """With the creation and expiry that they came with, in memory and on disk."""
    expected = [fields(record) for record in others[:4]]
    assert store.replace(others, before_commit=None) == ReplaceResult(stored=4, removed=1, expired=1)
    assert contents(store) == expected
    assert (store.usernames(), len(store)) == (["alice", "dave"], 4)
    store.close()
    store = open_store()
    assert contents(store) == expected
    clock.now += 0.25
    assert (store.has_expired(), store.lookup("d1")) == (True, None)


def test_the_index_works_on_after_a_restoration(
    store: TokenStore, others: list[BearerTokenRecord], open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """Storing, renewing, deleting and sweeping find what they should."""
    store.replace(iter(others), before_commit=None)
    store_token(store, "dave", "d2", None)
    store_token(store, "alice", "a2", 500)
    assert delete_tokens(store, username="alice", token="b1") == 1
    clock.now += 1
    assert store.sweep() == 1
    assert delete_tokens(store, token="d2") == 1
    expected = [fields(others[0]), ("a2", "alice", others[1].created, clock.now + 499)]
    assert contents(store) == expected
    store.close()
    assert contents(open_store()) == expected


def test_users_who_lost_tokens_are_reported_once(store: TokenStore, others: list[BearerTokenRecord]) -> None:
    """Tokens that are gone, expired ones too, and those that are another user's now; by then it is done."""
    seen: list[tuple[list[str], list[str]]] = []

    def record(tokens: Sequence[str]) -> None:
        seen.append((sorted(tokens), store.usernames()))

    store.on_revoked.append(record)
    store.replace(others, before_commit=None)
    assert seen == [(["b1", "c1"], ["alice", "dave"])]
    store.replace(others, before_commit=None)
    assert len(seen) == 1


def test_nothing_in_the_place_of_all_is_possible(store: TokenStore, raw_database: RawDatabase) -> None:
    """An empty backup is one."""
    assert store.replace([], before_commit=None) == ReplaceResult(stored=0, removed=3, expired=0)
    assert (contents(store), raw_database.keys()) == ([], [])
    assert store.replace([], before_commit=None) == ReplaceResult(stored=0, removed=0, expired=0)


def test_rows_that_are_no_tokens_of_ours_go_or_stay(store: TokenStore, raw_database: RawDatabase) -> None:
    """What was planted under a token's key goes, pickled or not; keys of others stay."""
    raw_database.plant(token="as-value", mode=4, value=b"pickle")
    raw_database.plant(token="wrong", value="[]")
    raw_database.plant(key="something else")
    store.replace([], before_commit=None)
    assert raw_database.keys() == ["something else"]


def test_a_commit_hook_gets_the_difference_and_may_refuse_it(
    store: TokenStore, others: list[BearerTokenRecord], raw_database: RawDatabase, open_store: OpenStore
) -> None:
    """The tokens that are new for their user, those that go, and how many there will be; what it raises undoes it."""
    before, keys = contents(store), raw_database.keys()
    owners = {record.token: record.username for record in store.records()}
    added = [fields(record) for record in others[:4] if owners.get(record.token) != record.username]
    stays = {record.token for record in others[:4]} - {token for token, *_ in added}
    heard: list[tuple[object, ...]] = []
    revoked: list[object] = []
    store.on_revoked.append(revoked.append)
    refusal = OSError(28, "No space left on device")

    def refuse(change: TokenChange) -> None:
        removed = {record.token for record in change.removed}
        heard.append((change.operation, [fields(record) for record in change.records], removed, change.count))
        raise refusal

    with pytest.raises(OSError, match="No space left") as raised:
        store.replace(others, before_commit=refuse)
    assert raised.value is refusal
    assert heard == [("restore", added, owners.keys() - stays, 4)]
    assert (contents(store), raw_database.keys(), revoked) == (before, keys, [])
    store.close()
    assert contents(open_store()) == before


def test_a_restoration_that_fails_changes_nothing(
    store: TokenStore, others: list[BearerTokenRecord], raw_database: RawDatabase
) -> None:
    """A lock, a trigger that stops the last row, one that swallows rows."""
    before, keys = contents(store), raw_database.keys()
    stop = "CREATE TRIGGER t BEFORE INSERT ON Cache WHEN NEW.key LIKE '%d1' BEGIN SELECT RAISE(ABORT, 'no'); END"
    swallow = "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE rowid = NEW.rowid; END"
    for trigger in (stop, swallow):
        raw_database.run(trigger)
        with pytest.raises(TokenStoreDamagedError):
            store.replace(others, before_commit=None)
        raw_database.run("DROP TRIGGER t")
        assert (contents(store), raw_database.keys()) == (before, keys)
    with raw_database.connect() as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TokenStoreBusyError):
            store.replace(others, before_commit=None)
    assert (contents(store), raw_database.keys()) == (before, keys)
    assert store.replace(others, before_commit=None).stored == 4


def test_look_ups_see_the_old_tokens_or_the_new_ones(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Look-ups never see a mixture while two sets of three hundred tokens alternate."""
    store = open_store()
    sets = [[BearerTokenRecord(f"{name}{n}", name, clock.now, None) for n in range(300)] for name in ("odd", "even")]
    store.replace(sets[0], before_commit=None)
    done = threading.Event()

    def read() -> set[tuple[int, str, str]]:
        seen = set()
        while not done.is_set():
            records = store.records()
            seen.add((len(records), records[0].username, records[-1].username))
        return seen

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(read) for _ in range(2)]
        for turn in range(4):
            store.replace(sets[turn % 2], before_commit=None)
        done.set()
        seen = set().union(*(future.result() for future in looking))
    assert seen <= {(300, "odd", "odd"), (300, "even", "even")}


def test_the_write_ahead_log_does_not_stay_as_long_as_a_restoration_makes_it(
    open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """The smaller log isn't mistaken for one that another program truncated."""
    store = open_store()
    store.replace(
        [BearerTokenRecord(f"t{number}", "alice", clock.now, None) for number in range(2000)], before_commit=None
    )
    assert (store.database.folder / "cache.db-wal").stat().st_size == 0
    store_token(store, "alice", "another", None)
    assert len(store) == 2001


def test_a_closed_store_takes_no_restoration(store: TokenStore, others: list[BearerTokenRecord]) -> None:
    """As with every other change."""
    store.close()
    with pytest.raises(TokenStoreError, match="is closed"):
        store.replace(others, before_commit=None)
