"""A flipped bit in a token database: met at the opening, or harmless. Bits and places are a seed's choice."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from nfcli.models.errors import TokenStoreDamagedError
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

OpenStore = Callable[[], TokenStore]

FLIPS = 60
TOKENS = 40
PAGE_BYTES, INDEX_LEAF = 4096, 10  # sqlite.org/fileformat2.html


def contents(store: TokenStore) -> dict[str, tuple[str, float | None]]:
    """Return whose each live token is, and when it expires."""
    return {record.token: (record.username, record.expires) for record in store.records()}


def filled(store: TokenStore) -> dict[str, tuple[str, float | None]]:
    """Store tokens of a few users, with and without an expiry, and close the store; return its contents."""
    for number in range(TOKENS):
        store_token(store, f"user-{number % 7}", f"token-{number}", number * 1000 if number % 2 else None)
    stored = contents(store)
    store.close()
    return stored


def replace(file: Path, data: bytes | bytearray) -> None:
    """Put a database without companions in place."""
    for name in ("cache.db-wal", "cache.db-shm"):
        file.with_name(name).unlink(missing_ok=True)
    file.write_bytes(data)


@pytest.mark.slow
def test_a_flipped_bit_alters_no_token_and_brings_none_back(open_store: OpenStore, tokens_folder: Path) -> None:
    """The database is refused, or rows that no longer hold valid tokens are skipped and counted.

    What is then deleted is gone for the next opening too, unless that one is refused.
    """
    stored = filled(open_store())
    file = tokens_folder / "cache.db"
    data = file.read_bytes()
    chance = random.Random(1)  # noqa: S311  no secrets
    outcomes = {"refused": 0, "skipped": 0, "harmless": 0}
    for _ in range(FLIPS):
        place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= bit
        replace(file, flipped)
        try:
            store = open_store()
        except TokenStoreDamagedError:
            outcomes["refused"] += 1
            continue
        found = contents(store)
        assert found.items() <= stored.items(), f"byte {place}, bit {bit}"
        assert (len(stored) - len(found)) == store.invalid_rows + store.pickled_rows, f"byte {place}, bit {bit}"
        outcomes["harmless" if found == stored else "skipped"] += 1
        deleted = set(list(found)[::8])
        for token in deleted:
            assert delete_tokens(store, token=token) == 1
        store.close()
        store = open_store()
        assert contents(store) == {token: found[token] for token in found.keys() - deleted}, f"byte {place}, bit {bit}"
        store.close()
    assert min(outcomes.values()) > 0


def test_a_schema_that_is_no_text_any_more_is_damage(open_store: OpenStore, tokens_folder: Path) -> None:
    """Python can't decode SQLite's message about it; ours is the usual one."""
    filled(open_store())
    file = tokens_folder / "cache.db"
    data = bytearray(file.read_bytes())
    data[data.index(b"INDEX Cache_tag_rowid") + 1] ^= 0x80
    file.write_bytes(data)
    with pytest.raises(TokenStoreDamagedError, match="is damaged or no token database, nothing changed: "):
        open_store()


def hide_from_index(file: Path, token: str) -> None:
    """Flip a bit of a token in the index on keys, and make open connections read the file again."""
    data = bytearray(file.read_bytes())
    key = f"bearer_token::{token}".encode()
    places = [match.end() - 1 for match in re.finditer(re.escape(key) + rb"(?![0-9])", data)]
    (place,) = [place for place in places if data[place // PAGE_BYTES * PAGE_BYTES] == INDEX_LEAF]
    data[place] ^= 0x40
    file.write_bytes(data)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA user_version = 1")


def test_a_deletion_that_an_index_hides_a_row_from_is_refused(open_store: OpenStore, tokens_folder: Path) -> None:
    """The next start would load the hidden row again."""
    stored = filled(open_store())
    store = open_store()
    hide_from_index(tokens_folder / "cache.db", "token-7")
    for delete in (partial(delete_tokens, store, token="token-7"), partial(delete_tokens, store, username="user-0")):
        with pytest.raises(TokenStoreDamagedError, match="is damaged or no token database, nothing changed: "):
            delete()
    assert contents(store) == stored
    assert delete_tokens(store, token="token-8") == 1


def test_a_deletion_of_a_row_that_is_gone_already_is_done(open_store: OpenStore, raw_database: RawDatabase) -> None:
    """Another program removed the row: the token must become invalid all the same."""
    filled(open_store())
    store = open_store()
    raw_database.run("DELETE FROM Cache WHERE key = 'bearer_token::token-7'")
    assert delete_tokens(store, token="token-7") == 1
    assert store.lookup("token-7") is None
