"""What the worker's tests share: token stores whose time the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.worker.token_store import TokenStore

START = 1_780_000_000.25


@pytest.fixture
def clock() -> SimpleNamespace:
    """Return a clock that stands still; a test moves it by setting `now` (epoch seconds)."""
    return SimpleNamespace(now=START)


@pytest.fixture
def tokens_folder(tmp_path: Path) -> Path:
    """Return where `open_store` keeps its database; it doesn't exist yet."""
    return tmp_path / "tokens"


@pytest.fixture
def open_store(clock: SimpleNamespace, tokens_folder: Path) -> Iterator[Callable[[], TokenStore]]:
    """Open the test's token database with the test's clock, as often as wanted; the end of the test closes it."""
    with ExitStack() as opened:

        def open_one() -> TokenStore:
            store = TokenStore.open(tokens_folder, clock=lambda: clock.now, lock_timeout_seconds=0.2)
            return opened.enter_context(store)

        yield open_one
