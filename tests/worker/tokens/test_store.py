"""The contract of a token store, on a real database."""

from __future__ import annotations

import inspect
import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nfcli.models.errors import TokenOwnerError, TokenStoreError
from nfcli.models.fields import LAST_INSTANT, MAX_EXPIRE_SECONDS
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.database import TokenDatabase
from nfcli.worker.tokens.store import SWEEP_BATCH_TOKENS, TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token
from support.tokens.usernames import valid_names

OpenStore = Callable[[], TokenStore]
Fields = tuple[str, str, float, float | None]

B64_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"

tokens = st.builds(str.__add__, st.text(B64_ALPHABET, min_size=1, max_size=1000), st.sampled_from(["", "=", "=="]))
lifetimes = st.none() | st.integers(1, MAX_EXPIRE_SECONDS)
instants = st.floats(0, 4_000_000_000)


def fields(record: BearerTokenRecord | None) -> Fields | None:
    """Return the fields of a record."""
    return record and (record.token, record.username, record.created, record.expires)


def contents(store: TokenStore) -> list[Fields | None]:
    """Return all live records of a store."""
    return [fields(record) for record in store.records()]


def test_a_stored_token_is_found_with_all_its_fields(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """`store` returns the record that `lookup` and `records` return."""
    store = open_store()
    stored = store_token(store, "alice", "secret-token", 3600)
    assert fields(stored) == ("secret-token", "alice", clock.now, clock.now + 3600)
    assert store.lookup("secret-token") is stored
    assert store.records() == [stored]
    assert store.lookup("secret-toke") is None


@settings(max_examples=30, deadline=None)
@given(username=valid_names, token=tokens, expire=lifetimes, now=instants)
def test_any_valid_token_survives_a_restart_unchanged(username: str, token: str, expire: int, now: float) -> None:
    """Every field is read back exactly, instants to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens")
        with TokenStore(path, clock=lambda: now, ticks=lambda: 0.0) as store:
            stored = fields(store_token(store, username, token, expire))
        with TokenStore(path, clock=lambda: now, ticks=lambda: 0.0) as store:
            assert contents(store) == [stored]


def test_storing_again_renews_the_expiry_and_keeps_the_creation(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The same user may make a token live longer, shorter or for ever."""
    store = open_store()
    created = clock.now
    for expire in (100, 5000, 10, None, 60):
        store_token(store, "alice", "secret-token", expire)
        expected = [("secret-token", "alice", created, None if expire is None else clock.now + expire)]
        assert contents(store) == expected
        store.close()
        store = open_store()
        assert contents(store) == expected
        clock.now += 1


def test_a_token_of_another_user_is_refused_and_left_as_it_was(open_store: OpenStore) -> None:
    """The error names neither the token nor its owner, and nothing changes."""
    store = open_store()
    store_token(store, "alice", "secret-token", 3600)
    before = contents(store)
    with pytest.raises(TokenOwnerError) as refused:
        store_token(store, "bob", "secret-token", 60)
    assert str(refused.value) == "token is stored for another user, nothing changed: delete it there first"
    assert contents(store) == before
    store.close()
    assert contents(open_store()) == before


def test_an_expired_token_of_another_user_counts_as_absent(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The new user gets it, the old one loses it, and listeners are notified that it was revoked."""
    store = open_store()
    revoked: list[Sequence[str]] = []
    store.on_revoked.append(revoked.append)
    store_token(store, "alice", "secret-token", 10)
    store_token(store, "alice", "other-token", None)
    clock.now += 10
    store_token(store, "bob", "secret-token", None)
    assert revoked == [["secret-token"]]
    assert [record.token for record in store.records("alice")] == ["other-token"]
    assert [fields(record) for record in store.records("bob")] == [("secret-token", "bob", clock.now, None)]
    before = contents(store)
    store.close()
    assert contents(open_store()) == before


def test_an_expired_token_of_the_same_user_is_created_again(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Its creation is not kept."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    clock.now += 11
    assert fields(store_token(store, "alice", "secret-token", 10)) == (
        "secret-token",
        "alice",
        clock.now,
        clock.now + 10,
    )
    assert len(store.records("alice")) == 1


def test_a_token_dies_at_the_very_moment_it_expires(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """One clock step earlier it is valid; at that moment no query returns it."""
    store = open_store()
    expires = store_token(store, "alice", "secret-token", 1).expires
    assert expires is not None
    clock.now = math.nextafter(expires, 0)
    assert store.lookup("secret-token") is not None
    assert (len(store), store.usernames(), len(store.records("alice"))) == (1, ["alice"], 1)
    clock.now = expires
    assert store.lookup("secret-token") is None
    assert (len(store), store.usernames(), store.records("alice")) == (0, [], [])


@pytest.mark.parametrize(
    ("arguments", "removed", "kept"),
    [
        ({"username": "alice"}, 2, {"b1"}),
        ({"token": "a1"}, 1, {"a2", "b1"}),
        ({"username": "alice", "token": "a1"}, 1, {"a2", "b1"}),
        ({"username": "bob", "token": "a1"}, 0, {"a1", "a2", "b1"}),
        ({"username": "carol"}, 0, {"a1", "a2", "b1"}),
        ({"token": "c1"}, 0, {"a1", "a2", "b1"}),
        ({}, 0, {"a1", "a2", "b1"}),
    ],
)
def test_delete_removes_what_matches_and_nothing_else(
    open_store: OpenStore, arguments: dict[str, str], removed: int, kept: set[str]
) -> None:
    """By user, by token, by both; in memory at once, and on disk."""
    store = open_store()
    for username, token in (("alice", "a1"), ("alice", "a2"), ("bob", "b1")):
        store_token(store, username, token, None)
    assert delete_tokens(store, **arguments) == removed
    assert {record.token for record in store.records()} == kept
    store.close()
    assert {record.token for record in open_store().records()} == kept


def test_deleting_an_expired_token_matches_nothing_but_clears_the_disk(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """It counts as absent, but its row is removed."""
    store = open_store()
    store_token(store, "alice", "secret-token", 10)
    clock.now += 10
    assert delete_tokens(store, token="secret-token") == 0
    assert raw_database.keys() == []


def test_records_come_by_user_and_then_by_creation(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The order of storing and renewing doesn't matter."""
    store = open_store()
    for username, token in (("bob", "b1"), ("alice", "z"), ("bob", "b2"), ("alice", "a"), ("Zoe", "x")):
        store_token(store, username, token, None)
        clock.now += 1
    store_token(store, "bob", "b1", 60)
    expected = ["x", "z", "a", "b1", "b2"]
    assert [record.token for record in store.records()] == expected
    assert [record.token for record in store.records("bob")] == ["b1", "b2"]
    assert store.records("nobody") == []
    assert store.usernames() == ["Zoe", "alice", "bob"]
    store.close()
    assert [record.token for record in open_store().records()] == expected


def test_there_is_something_to_sweep_from_the_earliest_expiry_on(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Tokens without expiry don't count, nor do renewed, deleted and swept ones."""
    store = open_store()
    start = clock.now
    for token, expire in (("never", None), ("late", 50), ("soon", 20), ("renewed", 10), ("deleted", 5)):
        store_token(store, "alice", token, expire)
    store_token(store, "alice", "renewed", 100)
    delete_tokens(store, token="deleted")
    found = []
    for passed in (0, 5, 10, 19.999, 20, 49, 50, 100):
        clock.now = start + passed
        found.append((passed, store.has_expired(), store.sweep(), store.has_expired()))
    assert found == [
        (0, False, 0, False),
        (5, False, 0, False),
        (10, False, 0, False),
        (19.999, False, 0, False),
        (20, True, 1, False),
        (49, False, 0, False),
        (50, True, 1, False),
        (100, True, 1, False),
    ]
    assert store.usernames() == ["alice"]


def test_a_sweep_removes_expired_tokens_from_disk_and_notifies(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """More than one transaction removes; live tokens remain."""
    store = open_store()
    revoked: list[Sequence[str]] = []
    store.on_revoked.append(revoked.append)
    count = SWEEP_BATCH_TOKENS + 3
    for number in range(count):
        store_token(store, "alice", f"short-{number:04}", 10)
    store_token(store, "alice", "long", 1000)
    assert store.sweep() == 0
    clock.now += 10
    assert store.sweep() == count
    assert [len(tokens) for tokens in revoked] == [SWEEP_BATCH_TOKENS, 3]
    assert [token for tokens in revoked for token in tokens] == [f"short-{number:04}" for number in range(count)]
    assert raw_database.keys() == ["bearer_token::long"]
    assert store.sweep() == 0


def test_opening_does_not_wait_for_the_sweep_of_many(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """None of the tokens that expired while the worker was down is valid; most are removed from disk behind."""
    store = open_store()
    count = 2 * SWEEP_BATCH_TOKENS + 1
    records = [BearerTokenRecord(f"t{number}", "ann", clock.now, clock.now + 10) for number in range(count)]
    assert store.import_tokens(records, before_commit=None).stored == count
    clock.now += 10
    store = open_store()
    assert len(raw_database.keys()) == count - SWEEP_BATCH_TOKENS
    assert (len(store), store.records(), store.lookup("t0"), store.has_expired()) == (0, [], None, True)
    assert store.sweep() == count - SWEEP_BATCH_TOKENS
    assert (raw_database.keys(), store.has_expired()) == ([], False)


def test_opening_sweeps(open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace) -> None:
    """Tokens that expired while the worker was down are removed from disk at its start."""
    store = open_store()
    store_token(store, "alice", "short", 10)
    store_token(store, "alice", "long", 1000)
    store.close()
    clock.now += 10
    assert [record.token for record in open_store().records()] == ["long"]
    assert raw_database.keys() == ["bearer_token::long"]


def test_listeners_are_notified_of_a_deletion_when_it_is_durable(
    open_store: OpenStore, raw_database: RawDatabase
) -> None:
    """By then neither disk nor memory has the token; an exception of one listener doesn't affect others."""
    store = open_store()
    seen: list[tuple[Sequence[str], list[str], object]] = []

    def fail(_tokens: Sequence[str]) -> None:
        raise ValueError("a fault in the listener")

    store.on_revoked += [fail, lambda tokens: seen.append((tokens, raw_database.keys(), store.lookup(tokens[0])))]
    store_token(store, "alice", "secret-token", None)
    store_token(store, "alice", "other-token", None)
    assert delete_tokens(store, username="alice") == 2
    assert delete_tokens(store, username="alice") == 0
    assert seen == [(["secret-token", "other-token"], [], None)]


def test_a_closed_store_finds_nothing_and_refuses_the_rest(open_store: OpenStore) -> None:
    """The store fails closed: no look-up succeeds, no write is lost silently."""
    store = open_store()
    store_token(store, "alice", "secret-token", None)
    store.close()
    store.close()
    assert (store.lookup("secret-token"), store.records(), len(store)) == (None, [], 0)
    for refused in (lambda: store_token(store, "alice", "b", None), lambda: delete_tokens(store, token="secret-token")):
        with pytest.raises(TokenStoreError, match=r"^token store is closed, nothing changed$"):
            refused()
    assert [record.token for record in open_store().records()] == ["secret-token"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia"])
def test_a_creation_without_offset_is_local_time(open_store: OpenStore, raw_database: RawDatabase, zone: str) -> None:
    """NorFab's workers write naive local time; their rows with a JSON value are read that way."""
    open_store().close()
    value = '{"token": "secret-token", "username": "alice", "created": "2026-05-31 12:08:51.914919"}'
    raw_database.plant(token="secret-token", value=value)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            [record] = open_store().records()
            entry = record.entry(record.created + 89.688340)
    finally:
        time.tzset()
    assert (entry["age"], entry["creation"]) == ("0:01:29.688340", "2026-05-31 12:08:51.914919")


def test_no_log_line_or_repr_holds_a_token(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at the lowest level."""
    caplog.set_level(logging.DEBUG)
    store = open_store()
    record = store_token(store, "alice", "secret-token", 10)
    with pytest.raises(TokenOwnerError):
        store_token(store, "bob", "secret-token", 10)
    store.on_revoked.append([].index)
    clock.now += 10
    store.sweep()
    store.close()
    assert caplog.messages == ["a listener for revoked tokens failed: ValueError"]
    assert "secret-token" not in caplog.text + repr(record) + repr(store)


@pytest.mark.parametrize(
    "record",
    [
        BearerTokenRecord("to ken", "alice", 1.0, None),
        BearerTokenRecord("secret-token", "a\nb", 1.0, None),
        BearerTokenRecord("secret-token", "\ud800", 1.0, None),
        BearerTokenRecord("secret-token", "alice", 1.0, LAST_INSTANT),
    ],
)
def test_a_record_that_loading_would_skip_is_refused(open_store: OpenStore, record: BearerTokenRecord) -> None:
    """It would be found until the next start only."""
    store = open_store()
    store_token(store, "bob", "kept", None)
    for change in (store.replace, store.import_tokens):
        with pytest.raises(ValidationError) as refused:
            change([record], before_commit=None)
        assert record.token not in str(refused.value)
    assert [each.token for each in store.records()] == ["kept"]


@pytest.mark.parametrize("owner", [TokenStore, TokenDatabase])
def test_every_change_names_its_commit_hook(owner: type) -> None:
    """None, for an unaudited change, is never a default."""
    signatures = [inspect.signature(method) for _, method in inspect.getmembers(owner, inspect.isfunction)]
    hooks = [each.parameters["before_commit"] for each in signatures if "before_commit" in each.parameters]
    assert len(hooks) >= 3
    assert {hook.default for hook in hooks} == {inspect.Parameter.empty}
