"""Helpers for tests that change a token store without an audit trail, or the database below it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nfcli.models.tasks.auth import BearerTokenStoreInput
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.changes import BeforeCommit
from nfcli.worker.tokens.store import TokenStore


def store_token(
    store: TokenStore, username: str, token: str, expire: int | None, *, before_commit: BeforeCommit | None = None
) -> BearerTokenRecord:
    """Store a token, unaudited unless the caller has a commit hook."""
    arguments = BearerTokenStoreInput(username=username, token=token, expire=expire)
    return store.store(arguments, before_commit=before_commit)


def delete_tokens(
    store: TokenStore,
    *,
    username: str | None = None,
    token: str | None = None,
    before_commit: BeforeCommit | None = None,
) -> int:
    """Delete tokens, unaudited unless the caller has a commit hook."""
    return store.delete(username=username, token=token, before_commit=before_commit)


def pragma(store: TokenStore, text: str) -> tuple[object, ...]:
    """Run a PRAGMA statement on the store's own connection."""
    return store.run(store.database.cache.pragma, text)


def descriptor_of(path: Path) -> int:
    """Return this process's file descriptor of a file that is open once."""
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  Path.iterdir would open one more
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                found.append(int(name))
    (descriptor,) = found
    return descriptor
