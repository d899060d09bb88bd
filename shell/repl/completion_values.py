"""Values to choose from while typing: names of workers, users, pages and commands. Never tokens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from enum import EnumType
from typing import Any, Protocol

from pydantic import BaseModel

from ...man.pages import list_pages
from ...models.commands.base import ALL_WORKERS, ANY_WORKER, Entry, Results, entries
from ...models.errors import NoWorkersError
from ...models.inventory.service import SERVICE

USERS_TIMEOUT_SECONDS = 1.0
USERS_FRESH_SECONDS = 10.0
RETRY_SECONDS = 30.0


class NamingClient(Protocol):
    """The client, as far as completion uses it."""

    def run_job(self, service: str, task: str, *, workers: str | Sequence[str] = ..., timeout: float = ...) -> Results:
        """Run a task."""

    def worker_names(self, service: str = ...) -> list[str]:
        """Return the names of the workers."""


class ValueSuggester:
    """Looks up what a field could be given. Failures give an empty list: completion must never get in the way.

    User names are kept for 10 s; after a failure neither workers nor broker are asked again for 30 s. `clock` gives
    monotonic seconds.
    """

    def __init__(
        self, client: NamingClient, root: type[BaseModel], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._root = root
        self._clock = clock
        self._users: list[str] = []
        self._users_until = float("-inf")
        self._names_after = float("-inf")

    def suggest(self, entry: Entry, typed: str = "") -> list[str]:
        """Return values for a field, all that begin with `typed` among them."""
        if entry.is_secret:
            return []
        if isinstance(entry.field.annotation, EnumType):
            return [str(member.value) for member in entry.field.annotation]
        lookup: dict[str, Callable[[], list[str]]] = {
            "workers": self._workers,
            "username": self._usernames,
            "topic": lambda: [topic for topic, _ in list_pages()],
            "path": lambda: self._paths(typed),
        }
        try:
            return lookup[entry.key]() if entry.key in lookup else []
        except Exception:  # noqa: BLE001  whatever fails here, the user goes on typing
            return []

    def invalidate(self) -> None:
        """Ask for user names anew next time: a command may have changed them."""
        if self._users:
            self._users_until = float("-inf")

    def _workers(self) -> list[str]:
        names: list[str] = []
        if self._clock() >= self._names_after:
            with contextlib.suppress(NoWorkersError):
                self._names_after = self._clock() + RETRY_SECONDS
                names = self._client.worker_names(SERVICE)
                self._names_after = float("-inf")
        return [ALL_WORKERS, ANY_WORKER, *filter(str.isprintable, names)]

    def _usernames(self) -> list[str]:
        if self._clock() >= self._users_until:
            self._users = []
            self._users_until = self._clock() + RETRY_SECONDS
            self._users = self._ask_usernames()
            self._users_until = self._clock() + USERS_FRESH_SECONDS
        return self._users

    def _ask_usernames(self) -> list[str]:
        results = self._client.run_job(SERVICE, "bearer_token_list", workers=ALL_WORKERS, timeout=USERS_TIMEOUT_SECONDS)
        answers: list[list[dict[str, Any]]] = [
            result["result"] for result in results.values() if isinstance(result["result"], list)
        ]
        if not answers:
            raise NoWorkersError("no worker has listed its tokens")
        rows = [row for answer in answers for row in answer]
        return sorted({name for row in rows if (name := str(row["username"])) and name.isprintable()})

    def _paths(self, typed: str) -> list[str]:
        """Return the paths one word longer than what is complete in `typed`."""
        *passed, _ = typed.split(".")
        model: type[BaseModel] | None = self._root
        for word in passed:
            entry = entries(model).get(word) if model else None
            model = entry.model if entry else None
        return [".".join([*passed, name]) for name in (entries(model) if model else ())]
