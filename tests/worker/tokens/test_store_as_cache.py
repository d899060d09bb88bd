"""What diskcache does as a cache and must not do to tokens: evict, expire, unpickle."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diskcache
import pytest

from nfcli.models.errors import TokenStoreDamagedError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.files import DATABASE_NAME
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]

LONG_AGO = 1_000_000_000.25


def contents(store: TokenStore) -> list[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return [(record.token, record.username, record.created, record.expires) for record in store.records()]


def cache_of(store: TokenStore) -> diskcache.Cache:
    """Return the cache below a store."""
    return store.database.cache


def in_its_thread(store: TokenStore, call: Callable[[], Any]) -> Any:
    """Make a call in the store's own thread."""
    return store.run(call)


def test_a_size_limit_evicts_no_token(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """With a limit of one byte a thousand tokens remain; a cache would silently drop the oldest ones."""
    store = open_store()
    in_its_thread(store, lambda: cache_of(store).reset("size_limit", 1))
    for number in range(1_000):
        store_token(store, f"user-{number % 10}", f"token-{number}", 10 + number)
    before = contents(store)
    assert (len(before), cache_of(store).size_limit) == (1_000, 1)
    assert len(raw_database.keys()) == 1_000
    store.close()
    assert contents(open_store()) == before


def test_the_store_alone_decides_what_has_expired(
    open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """Rows that are long expired by diskcache's clock are neither culled nor hidden."""
    clock.now = LONG_AGO
    store = open_store()
    for number in range(50):
        store_token(store, "alice", f"token-{number}", 60)
    assert in_its_thread(store, lambda: cache_of(store).get("bearer_token::token-7")) is None
    before = contents(store)
    assert (len(before), len(raw_database.keys())) == (50, 50)
    store_token(store, "alice", "token-7", 120)
    assert store.lookup("token-7") is not None
    assert delete_tokens(store, token="token-8") == 1
    assert len(raw_database.keys()) == 49
    store.close()
    assert len(open_store()) == 49


def test_a_token_that_expired_at_the_very_beginning_of_time_has_expired(
    open_store: OpenStore, raw_database: RawDatabase
) -> None:
    """Zero is an instant and doesn't mean never."""
    open_store().close()
    raw_database.plant(token="old", expire_time=0.0)
    store = open_store()
    assert (store.invalid_rows, raw_database.keys()) == (0, [])  # swept at the opening
    store.index.put(BearerTokenRecord("old", "alice", 0.0, 0.0))
    assert (store.lookup("old"), store.records(), len(store), store.usernames()) == (None, [], 0, [])


class _Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_no_method_of_the_open_cache_unpickles(
    open_store: OpenStore, raw_database: RawDatabase, tmp_path: Path
) -> None:
    """Also methods that the store doesn't call: reading a planted row is an error."""
    proof = tmp_path / "it ran"
    store = open_store()
    raw_database.plant(token="as-value", mode=4, value=pickle.dumps(_Bomb(proof)))
    raw_database.plant(key=pickle.dumps(_Bomb(proof)), raw=0)
    cache = cache_of(store)
    for read in (
        lambda: cache.get("bearer_token::as-value"),
        lambda: cache["bearer_token::as-value"],
        lambda: list(cache),
        cache.peekitem,
    ):
        with pytest.raises(TokenStoreDamagedError):
            in_its_thread(store, read)
    for write in (
        lambda: cache.set("key", {"a": 1}),
        lambda: cache.set(("a", 1), "value"),
        lambda: cache.add("k", b"v"),
    ):
        with pytest.raises(TypeError):
            in_its_thread(store, write)
    assert not proof.exists()


def test_an_inconsistent_copy_is_refused(open_store: OpenStore, tokens_folder: Path, tmp_path: Path) -> None:
    """Its halves are of different moments, as when a file is copied during writes without its log."""
    store = open_store()
    halves = []
    for turn in range(2):
        for number in range(200):
            store_token(store, f"user-{turn}-{number}", f"{turn}-{number}-{'x' * 200}", None)
        if turn:
            delete_tokens(store, username="user-0-7")
        in_its_thread(store, cache_of(store).shrink)
        halves.append((tokens_folder / DATABASE_NAME).read_bytes())
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    file = copy / DATABASE_NAME
    file.touch(mode=0o600)
    middle = len(halves[0]) // 4096 // 2 * 4096
    file.write_bytes(halves[1][:middle] + halves[0][middle:])
    with pytest.raises(TokenStoreDamagedError, match=r"is damaged or no token database"):
        TokenStore(copy)
    shutil.rmtree(copy)
