"""The digest of a token set: equal for equal sets under one fleet key, kept exactly through every kind of change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.replication.hashing import DIGEST_MODULUS, TokenHasher
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import delete_tokens, store_token

KEY, OTHER_KEY = FleetKey(bytes(range(32))), FleetKey(bytes(32))
OpenSite = Callable[..., TokenStore]


@pytest.fixture
def open_site(tmp_path: Path, clock: SimpleNamespace) -> Iterator[OpenSite]:
    """Open the stores of a fleet, each in the folder of its name."""
    with ExitStack() as opened:

        def open_one(name: str, key: FleetKey = KEY) -> TokenStore:
            clocks = {"clock": lambda: clock.now, "ticks": lambda: clock.ticks}
            return opened.enter_context(TokenStore(tmp_path / name, **clocks, fleet_key=key))

        yield open_one


def expected_digest(store: TokenStore, key: FleetKey = KEY) -> int:
    """Compute the digest of a store's live tokens from nothing."""
    return sum(map(TokenHasher(key).record_hash, store.records())) % DIGEST_MODULUS


def test_equal_sets_have_one_digest_in_any_order(open_site: OpenSite) -> None:
    """Tokens, users and expiries count; the order of the changes doesn't."""
    one, other = open_site("w1"), open_site("w2")
    assert one.digest() == other.digest() == 0
    for token in ("a", "b", "c"):
        store_token(one, "ann", token, None)
    for token in ("c", "x", "b", "a"):
        store_token(other, "ann", token, None)
    assert one.digest() != other.digest()
    delete_tokens(other, token="x")
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    "record",
    [
        BearerTokenRecord("other", "ann", 1.0, 9e9),
        BearerTokenRecord("t", "bob", 1.0, 9e9),
        BearerTokenRecord("t", "ann", 1.0, 9e9 + 1e-6),
        BearerTokenRecord("t", "ann", 1.0, None),
    ],
)
def test_token_user_and_expiry_make_a_difference(record: BearerTokenRecord) -> None:
    """The creation doesn't: two workers may have received the same token at different times."""
    hasher = TokenHasher(KEY)
    base = hasher.record_hash(BearerTokenRecord("t", "ann", 2.0, 9e9))
    assert hasher.record_hash(record) != base
    assert hasher.record_hash(BearerTokenRecord("t", "ann", 5.0, 9e9)) == base


def test_a_digest_needs_the_fleet_key(open_site: OpenSite) -> None:
    """Another key gives another digest, and another id that tells so."""
    one, other = open_site("w1"), open_site("w2", OTHER_KEY)
    for store in (one, other):
        store_token(store, "ann", "t", None)
    assert one.digest() != other.digest()
    assert one.hasher.key_id != other.hasher.key_id


def test_a_digest_follows_every_kind_of_change(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """Creation, renewal, deletion, expiry, import, restore, and a restart, which computes it from nothing."""
    store = open_site("w1")
    steps: list[Callable[[], object]] = [
        lambda: store_token(store, "ann", "a", None),
        lambda: store_token(store, "ann", "b", 50),
        lambda: store_token(store, "ann", "b", 500),
        lambda: delete_tokens(store, token="a"),
        lambda: store.import_tokens([BearerTokenRecord("i", "bob", 1.0, None)], before_commit=None),
        lambda: store_token(store, "zoe", "short", 5),
        lambda: setattr(clock, "now", clock.now + 6),
        store.sweep,
        lambda: store.replace([BearerTokenRecord("r", "bob", 1.0, None)], before_commit=None),
        lambda: delete_tokens(store, username="bob"),
        lambda: store_token(store, "ann", "last", None),
    ]
    for step in steps:
        step()
        assert store.digest() == expected_digest(store)
    digest = store.digest()
    store.close()
    assert open_site("w1").digest() == digest != 0


def test_a_job_for_several_workers_gives_them_the_same_expiry(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """It counts from when the client made the job, where that is near; a client with a wrong clock is ignored."""
    one, other = open_site("w1"), open_site("w2")

    def store_on_both(token: str, expire: int, issued: float | None) -> list[BearerTokenRecord]:
        records = []
        for store in (one, other):
            clock.now += 0.7
            given = BearerTokenStoreInput(username="ann", token=token, expire=expire)
            records.append(store.store(given, before_commit=None, issued=issued))
        return records

    issued = round(clock.now, 6)
    first, second = store_on_both("t", 3600, issued)
    assert first == second == BearerTokenRecord("t", "ann", issued, issued + 3600)
    assert one.digest() == other.digest()
    for wrong in (issued - 86_400, issued + 86_400, None):
        first, second = store_on_both(f"wrong-{wrong}", 3600, wrong)
        assert second.created == round(clock.now, 6) == pytest.approx(first.created + 0.7)


def test_the_delay_of_a_job_takes_little_of_a_short_lifetime(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """A lifetime of seconds counts from when the worker stores the token."""
    given = BearerTokenStoreInput(username="ann", token="t", expire=5)
    record = open_site("w1").store(given, before_commit=None, issued=clock.now - 6)
    assert record.expires == clock.now + 5
