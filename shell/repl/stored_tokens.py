"""Ask the workers whether a word is one of their tokens, so that a history doesn't keep it."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...models.commands.base import ALL_WORKERS
from ...models.errors import NfcliError
from ...models.inventory.schema import SERVICE
from .dispatch import ShellClient
from .services.background import RETRY_SECONDS

CHECK_TIMEOUT_SECONDS = 1.0


class StoredTokens:
    """Whether words are stored as tokens; a word counts as one where no worker answers.

    Then none is asked for 30 s, so that the prompt doesn't wait each time. `clock` returns monotonic seconds.
    """

    def __init__(self, client: ShellClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._asks_after = float("-inf")

    def __contains__(self, word: object) -> bool:
        """Return whether a worker has a token of that text, or none says that it hasn't."""
        if self._clock() < self._asks_after:
            return True
        self._asks_after = self._clock() + RETRY_SECONDS
        try:
            results = self._client.run_job(
                SERVICE,
                "bearer_token_check",
                kwargs={"token": word},
                workers=ALL_WORKERS,
                timeout=CHECK_TIMEOUT_SECONDS,
            )
        except NfcliError:
            return True
        answers = [result["result"] for result in results.values() if not result["failed"]]
        if answers:
            self._asks_after = float("-inf")
        return not answers or any(answers)
