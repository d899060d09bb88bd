"""The thread of a token store: it alone uses the database, one operation at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

from ...models.errors import RevocationPendingError, TokenStoreError

log = logging.getLogger(__name__)

_Arguments = TypeVarTuple("_Arguments")
_Value = TypeVar("_Value")


class StoreThread:
    """Runs functions in one thread, and calls the listeners for the tokens that they revoked.

    `limit_wait` is called before each function with the seconds that are left of `lock_timeout_seconds`: calls that
    were queued may have waited for a lock, and together they must not wait longer than one. It is set before `run` is
    used. The functions in `on_operation` are called with the seconds that each call of `run` took, waiting included;
    they must neither block nor raise.
    """

    def __init__(self, lock_timeout_seconds: float) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="token-store")
        self._lock_timeout_seconds = lock_timeout_seconds
        self.is_closed = False
        self.limit_wait: Callable[[float], None]
        self.on_revoked: list[Callable[[Sequence[str]], None]] = []
        self.on_operation: list[Callable[[float], None]] = []

    def run_unchecked(self, function: Callable[[*_Arguments], _Value], *args: *_Arguments) -> _Value:
        """Run a function, also before the database is open and after the store is closed; wait for its result."""
        return self._executor.submit(function, *args).result()

    def submit(self, function: Callable[[], None]) -> None:
        """Have a function run, unless the thread has ended; don't wait."""
        with suppress(RuntimeError):
            self._executor.submit(function)

    def run(self, function: Callable[[*_Arguments], _Value], *args: *_Arguments) -> _Value:
        """Run a function and wait for its result.

        Raises:
            TokenStoreError: the store is closed.
        """
        submitted = time.monotonic()

        def run() -> _Value:
            if self.is_closed:
                raise TokenStoreError("token store is closed, nothing changed")
            self.limit_wait(self._lock_timeout_seconds - (time.monotonic() - submitted))
            return function(*args)

        try:
            future = self._executor.submit(run)
        except RuntimeError:  # the thread has ended
            raise TokenStoreError("token store is closed, nothing changed") from None
        try:
            return future.result()
        finally:
            for observe in self.on_operation:
                observe(time.monotonic() - submitted)

    def change(self, function: Callable[[*_Arguments], tuple[_Value, list[str]]], *args: *_Arguments) -> _Value:
        """Run a function that returns a value and the tokens that it revoked; return the value."""
        try:
            value, revoked = self.run(function, *args)
        except RevocationPendingError as error:
            self.notify_revoked(error.tokens)
            raise
        self.notify_revoked(revoked)
        return value

    def notify_revoked(self, tokens: Sequence[str]) -> None:
        """Call the listeners; one that fails doesn't keep the others from being called."""
        if not tokens:
            return
        for listener in list(self.on_revoked):
            try:
                listener(tokens)
            except Exception as error:  # noqa: BLE001  the tokens are removed; a listener's error must not undo that
                log.error("a listener for revoked tokens failed: %s", type(error).__name__)

    def shutdown(self) -> None:
        """End the thread once all functions have run."""
        self._executor.shutdown()
