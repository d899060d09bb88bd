"""Helpers for tests that change the database below a token store."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nfcli.worker.tokens.store import TokenStore


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
