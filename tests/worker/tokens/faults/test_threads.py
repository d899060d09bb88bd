"""A token store under several callers at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.errors import TokenOwnerError, TokenStoreError
from nfcli.worker.tokens.database import TokenDatabase
from nfcli.worker.tokens.store import SWEEP_BATCH_TOKENS, TokenStore
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]


def contents(store: TokenStore) -> set[tuple[str, str, float, float | None]]:
    """Return all live records of a store."""
    return {(record.token, record.username, record.created, record.expires) for record in store.records()}


def test_many_threads_leave_memory_and_disk_alike(open_store: OpenStore) -> None:
    """Stores, deletions, sweeps and reads at once."""
    store = open_store()

    def work(worker: int) -> None:
        for number in range(20):
            store_token(store, f"user-{worker % 3}", f"t-{worker}-{number}", None)
            assert store.lookup(f"t-{worker}-{number}") is not None
            store.records()
            if number % 3 == 0:
                assert delete_tokens(store, token=f"t-{worker}-{number}") == 1
            store.sweep()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    expected = {f"t-{worker}-{number}" for worker in range(8) for number in range(20) if number % 3}
    before = contents(store)
    assert {record.token for record in store.records()} == expected
    store.close()
    assert contents(open_store()) == before


def test_two_users_racing_for_one_token_leave_one_owner(open_store: OpenStore) -> None:
    """Exactly one succeeds, the others are refused."""
    store = open_store()
    barrier = threading.Barrier(6)

    def grab(username: str) -> bool:
        barrier.wait()
        try:
            store_token(store, username, "secret-token", None)
        except TokenOwnerError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        served = list(pool.map(grab, [f"user-{number}" for number in range(6)]))
    assert sorted(served) == [False] * 5 + [True]
    assert store.usernames() == [f"user-{served.index(True)}"]


@pytest.mark.slow
def test_a_token_stored_again_during_a_sweep_stays(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Other calls run between two of its transactions, and the sweep takes their changes into account."""
    store = open_store()
    for number in range(SWEEP_BATCH_TOKENS + 2):
        store_token(store, "alice", f"t{number:04}", 10)
    clock.now += 10
    last = f"t{SWEEP_BATCH_TOKENS + 1:04}"

    def store_again(tokens: Sequence[str]) -> None:
        if "t0000" in tokens:
            store_token(store, "alice", last, None)

    store.on_revoked.append(store_again)
    assert store.sweep() == SWEEP_BATCH_TOKENS + 1
    assert [record.token for record in store.records()] == [last]


def test_a_call_during_closing_is_refused(
    open_store: OpenStore, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the store's thread removes the expired tokens, after which the thread ends."""
    store = open_store()
    store_token(store, "alice", "expired", 10)
    store_token(store, "bob", "secret-token", None)
    clock.now += 10
    remove, calls = TokenDatabase.remove, list[Future[int]]()

    def remove_meanwhile(database: TokenDatabase, *args: Any, **options: Any) -> None:
        calls.append(pool.submit(delete_tokens, store, username="bob"))
        remove(database, *args, **options)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(TokenDatabase, "remove", remove_meanwhile)
        store.close()
    monkeypatch.undo()
    with pytest.raises(TokenStoreError, match="is closed"):
        calls[0].result()
    assert open_store().usernames() == ["bob"]
