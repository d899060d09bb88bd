"""Tombstones: written with the deletion, without a token, kept for 30 days, and stronger than older creations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.backup import read_backup
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

KEY, OTHER_KEY = FleetKey(bytes(range(32))), FleetKey(bytes(32))
DAY = 86_400.0
OpenSite = Callable[..., TokenStore]


@pytest.fixture
def open_site(tmp_path: Path, clock: SimpleNamespace) -> Iterator[OpenSite]:
    """Open the stores of a fleet, each in the folder of its name."""
    with ExitStack() as opened:

        def open_one(name: str = "w1", key: FleetKey = KEY) -> TokenStore:
            clocks = {"clock": lambda: clock.now, "ticks": lambda: clock.ticks}
            return opened.enter_context(TokenStore(tmp_path / name, **clocks, fleet_key=key))

        yield open_one


def rows(folder: Path) -> dict[str, float]:
    """Return the rows of tombstones in a database."""
    with RawDatabase(folder).connect() as connection:
        found = connection.execute("SELECT key, value FROM Cache WHERE key GLOB 'tombstone::*'").fetchall()
    return {key: float(value) for key, value in found}


def key_of(store: TokenStore, kind: str, name: str) -> str:
    """Return the key of a tombstone's row."""
    digest = store.hasher.token_id(name) if kind == "token" else store.hasher.user_id(name)
    return f"tombstone::{store.hasher.key_id}::{kind}::{digest.hex()}"


def test_a_deletion_leaves_a_keyed_hash_and_its_time(
    open_site: OpenSite, clock: SimpleNamespace, tmp_path: Path
) -> None:
    """In the database and after a restart; neither token nor user is in the rows."""
    store = open_site()
    store_token(store, "ann", "secret-1", None)
    store_token(store, "bob", "secret-2", None)
    clock.now += 10
    assert [delete_tokens(store, token="secret-1"), delete_tokens(store, username="bob")] == [1, 1]
    now = round(clock.now, 6)
    expected = {key_of(store, "token", token): now for token in ("secret-1", "secret-2")}
    expected[key_of(store, "user", "bob")] = now
    assert rows(tmp_path / "w1") == expected
    assert not any(text in key for key in expected for text in ("secret", "ann", "bob"))
    store.close()
    assert open_site().tombstones.latest_for("secret-1", "ann") == now


def test_a_deletion_that_matched_nothing_here_holds_elsewhere(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """The token may be stored on a worker that was away; a token and a user together mean that pair alone."""
    store = open_site()
    assert [delete_tokens(store, token="t1"), delete_tokens(store, username="ann")] == [0, 0]
    assert delete_tokens(store, username="bob", token="t2") == 0
    assert store.tombstones.latest_for("t1", "zoe") == store.tombstones.latest_for("x", "ann") == round(clock.now, 6)
    assert store.tombstones.latest_for("t2", "bob") < 0


def test_a_refused_deletion_leaves_no_tombstone(open_site: OpenSite, tmp_path: Path) -> None:
    """It is in the deletion's transaction."""

    def refuse(_change: object) -> None:
        raise ValueError("refused")

    store = open_site()
    store_token(store, "ann", "t", None)
    with pytest.raises(ValueError, match="refused"):
        delete_tokens(store, token="t", before_commit=refuse)
    assert (rows(tmp_path / "w1"), store.tombstones.tokens) == ({}, {})
    assert store.lookup("t") is not None


@pytest.mark.parametrize("clock_step", [0.0, -100.0, 100.0])
def test_a_creation_after_a_deletion_is_the_later_one(
    open_site: OpenSite, clock: SimpleNamespace, clock_step: float, tmp_path: Path
) -> None:
    """Whatever the clocks say; the token's tombstone goes with the creation."""
    store = open_site()
    store_token(store, "ann", "t", None)
    delete_tokens(store, username="ann")
    deleted = store.tombstones.latest_for("t", "ann")
    store.close()
    clock.now += clock_step
    store = open_site()
    record = store_token(store, "ann", "t", None)
    assert record.created > deleted
    assert rows(tmp_path / "w1").keys() == {key_of(store, "user", "ann")}
    assert not store.tombstones.covers(record)


def test_a_deletion_is_never_older_than_what_it_deletes(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """A record from a worker whose clock is ahead."""
    store = open_site()
    ahead = BearerTokenRecord("t", "ann", clock.now + 500, None)
    store.replace([ahead], before_commit=None)
    delete_tokens(store, username="ann")
    assert store.tombstones.covers(ahead)


def test_tombstones_are_kept_for_thirty_days(open_site: OpenSite, clock: SimpleNamespace, tmp_path: Path) -> None:
    """Those of another fleet key too; then a sweep removes them from memory and disk."""
    store = open_site()
    delete_tokens(store, token="t")
    store.close()
    store = open_site(key=OTHER_KEY)
    assert store.tombstones.latest_for("t", "ann") < 0
    clock.now += DAY
    delete_tokens(store, token="u")
    clock.now += 29 * DAY - 1
    assert not store.has_expired()
    clock.now += 1
    assert store.has_expired()
    store.sweep()
    assert rows(tmp_path / "w1").keys() == {key_of(store, "token", "u")}
    assert not store.has_expired()
    clock.now += DAY
    store.sweep()
    assert (rows(tmp_path / "w1"), store.tombstones.tokens) == ({}, {})


def test_tombstones_of_users_are_kept_as_long(open_site: OpenSite, clock: SimpleNamespace, tmp_path: Path) -> None:
    """And removed as those of tokens are."""
    store = open_site()
    delete_tokens(store, username="ann")
    assert list(rows(tmp_path / "w1")) == [key_of(store, "user", "ann")]
    clock.now += 30 * DAY
    store.sweep()
    assert (rows(tmp_path / "w1"), store.tombstones.users, store.has_expired()) == ({}, {}, False)


@pytest.mark.parametrize("value", ["nan", "-1", "x", "1e300"])
def test_planted_tombstones_are_removed(open_site: OpenSite, tmp_path: Path, value: str) -> None:
    """A value that is no time, and keys in another form."""
    store = open_site()
    keys = [key_of(store, "token", "t"), "tombstone::", f"{key_of(store, 'token', 't')}0"]
    store.close()
    for key in keys:
        RawDatabase(tmp_path / "w1").plant(key=key, tag="", value=value if key == keys[0] else "1")
    store = open_site()
    assert (store.tombstones.tokens, store.tombstones.users) == ({}, {})
    assert rows(tmp_path / "w1") == {}


def test_an_expired_renewal_keeps_older_versions_away(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """Renewed with a short lifetime here, the token has a longer one on a worker that was away; others leave none."""
    store = open_site()
    older = store_token(store, "ann", "t", 9_999)
    store_token(store, "ann", "plain", 5)
    clock.now += 1
    store_token(store, "ann", "t", 5)
    clock.now += 10
    store.sweep()
    assert store.tombstones.covers(older)
    assert list(store.tombstones.tokens) == [store.hasher.token_id("t")]


def test_an_import_does_not_bring_back_what_was_deleted(open_site: OpenSite, clock: SimpleNamespace) -> None:
    """A database that is imported again still has it; one that was created there since is imported."""
    store = open_site()
    old = BearerTokenRecord("t", "ann", clock.now, None)
    assert store.import_tokens([old], before_commit=None).stored == 1
    clock.now += 5
    delete_tokens(store, token="t")
    result = store.import_tokens([old], before_commit=None)
    assert (result.stored, result.deleted, store.lookup("t")) == (0, 1, None)
    new = BearerTokenRecord("t", "ann", clock.now + 1, None)
    assert store.import_tokens([new], before_commit=None).stored == 1


def test_a_backup_has_the_tombstones_and_a_restore_adds_them(
    open_site: OpenSite, clock: SimpleNamespace, tmp_path: Path
) -> None:
    """To those stored here; what the restore brings back has none, and those of before thirty days are left out."""
    one, other = open_site("w1"), open_site("w2")
    delete_tokens(one, token="long ago".replace(" ", "-"))
    clock.now += 29.5 * DAY
    store_token(one, "ann", "kept", None)
    delete_tokens(one, token="gone")
    one.backup(tmp_path / "backup")
    delete_tokens(other, token="kept")
    delete_tokens(other, token="own")
    clock.now += DAY
    loaded = read_backup(tmp_path / "backup")
    other.replace(loaded.records, before_commit=None, tombstones=loaded.tombstones)
    expected = {key_of(other, "token", token) for token in ("gone", "own")}
    assert rows(tmp_path / "w2").keys() == expected
    other.close()
    restored = open_site("w2")
    assert set(restored.tombstones.tokens) == {restored.hasher.token_id(token) for token in ("gone", "own")}
    assert restored.digest() == one.digest()
