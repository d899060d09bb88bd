"""User names that look the same are the same user, also those that an earlier version stored otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable

from nfcli.models.tasks.auth import BearerTokenDeleteInput, BearerTokenListInput
from nfcli.worker.tokens.store import TokenStore
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import delete_tokens, store_token

COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"
HIDDEN = "bob\u200b"
HEART = "\u2764"


def plant(database: RawDatabase, token: str, username: str) -> None:
    """Write a row as an earlier version did, with the name as it was typed."""
    value = json.dumps({"token": token, "username": username, "created": "2026-05-31T12:08:51+00:00"})
    database.plant(token=token, tag=username, value=value)


def test_composed_and_decomposed_names_are_one_user(open_store: Callable[[], TokenStore]) -> None:
    """Whichever is typed: deleting a user's tokens leaves none of the other form."""
    store = open_store()
    store_token(store, COMPOSED, "t1", None)
    store_token(store, DECOMPOSED, "t2", None)
    assert store.usernames() == [COMPOSED]
    assert delete_tokens(store, username=str(BearerTokenDeleteInput(username=DECOMPOSED).username)) == 2


def test_names_that_are_stored_already_are_read_as_one_form(
    open_store: Callable[[], TokenStore], raw_database: RawDatabase
) -> None:
    """No token is lost; each can be listed and deleted by its user's name, and deleted rows stay deleted."""
    open_store().close()
    plant(raw_database, "t1", DECOMPOSED)
    plant(raw_database, "t2", HIDDEN)
    plant(raw_database, "t3", "bob")
    plant(raw_database, "t4", f"{HEART}\ufe0f")
    store = open_store()
    assert sorted(store.usernames()) == sorted(["bob", HIDDEN, COMPOSED, HEART])
    for typed, token in ((DECOMPOSED, "t1"), (HIDDEN, "t2"), (HEART, "t4")):
        name = BearerTokenListInput(username=typed).username
        assert [record.token for record in store.records(name)] == [token]
        assert delete_tokens(store, username=name) == 1
        assert store.lookup(token) is None
    store.close()
    assert raw_database.keys() == ["bearer_token::t3"]
    assert open_store().usernames() == ["bob"]
