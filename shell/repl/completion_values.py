"""Suggest values while a line is typed: names of workers, users, pages and commands; never tokens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import EnumType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ...man.pages import list_examples, list_pages
from ...models.commands.base import ALL_WORKERS, ANY_WORKER, CommandGroup, Entry, JobArguments, entries, find_entry
from ...models.commands.root import Root
from ...models.errors import NfcliError, NoWorkersError
from ...models.inventory.schema import SERVICE
from ..syntax.parser import Scope
from .dispatch import ShellClient
from .services.background import RETRY_SECONDS
from .services.shared_files import SharedFiles

USERS_TIMEOUT_SECONDS = 1.0
USERS_FRESH_SECONDS = 10.0


class ValueSuggester:
    """Looks up values for a field. Failures give an empty list: completion must never get in the way.

    User names are cached for 10 s; after a failure neither workers nor broker are asked for 30 s. `clock` returns
    monotonic seconds.
    """

    def __init__(
        self,
        client: ShellClient,
        root: type[CommandGroup] = Root,
        files: SharedFiles | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._root = root
        self._files = files
        self._clock = clock
        self._users: list[str] = []
        self._users_until = float("-inf")
        self._names_after = float("-inf")

    def suggest(self, entry: Entry, typed: str = "", service: str = SERVICE) -> list[str]:
        """Return values for a field, among them all that begin with `typed`; workers and users are those of `service`.

        Only workers of `fastmcp` list their users.
        """
        if entry.is_secret:
            return []
        if entry.value_type is not None:
            return list(entry.value_type.choices) or self._shared_files(typed)
        if choices := _choices(entry.field.annotation):
            return choices
        lookup: dict[str, Callable[[], list[str]]] = {
            "workers": lambda: self._workers(service),
            "source": lambda: self._worker_names(service),
            "targets": lambda: self._worker_names(service),
            "worker": lambda: list(self._client.missing_workers()),
            "username": lambda: self._usernames() if service == SERVICE else [],
            "uuid": lambda: [row["uuid"] for row in reversed(self._client.list_jobs())],
            "topic": lambda: [topic for topic, _ in list_pages()],
            "file": list_examples,
            "url": lambda: self._shared_files(typed),
            "path": lambda: _paths(self._root, typed),
        }
        try:
            return lookup[entry.key]() if entry.key in lookup else []
        except Exception:  # noqa: BLE001  whatever fails here, the user goes on typing
            return []

    def invalidate(self) -> None:
        """Fetch user names again next time, because a command may have changed them."""
        if self._users:
            self._users_until = float("-inf")

    def _shared_files(self, typed: str) -> list[str]:
        try:
            return [] if self._files is None else self._files.paths(typed)
        except NfcliError:
            return []

    def _workers(self, service: str) -> list[str]:
        return [ALL_WORKERS, ANY_WORKER, *self._worker_names(service)]

    def _worker_names(self, service: str) -> list[str]:
        names: list[str] = []
        if self._clock() >= self._names_after:
            with contextlib.suppress(NoWorkersError):
                self._names_after = self._clock() + RETRY_SECONDS
                names = self._client.worker_names(service)
                self._names_after = float("-inf")
        return list(filter(str.isprintable, names))

    def _usernames(self) -> list[str]:
        if self._clock() >= self._users_until:
            self._users = []
            self._users_until = self._clock() + RETRY_SECONDS
            self._users = self._fetch_usernames()
            self._users_until = self._clock() + USERS_FRESH_SECONDS
        return self._users

    def _fetch_usernames(self) -> list[str]:
        # Not from a listing: that shows tokens, and each leaves a line in the audit trail.
        results = self._client.run_job(SERVICE, "token_users", workers=ALL_WORKERS, timeout=USERS_TIMEOUT_SECONDS)
        lists: list[list[Any]] = [result["result"] for result in results.values() if isinstance(result["result"], list)]
        if not lists:
            raise NoWorkersError("no worker has listed its users")
        return sorted({str(name) for names in lists for name in names if name and str(name).isprintable()})


def service_of(command: Scope | None) -> str:
    """Return the service to whose workers a command's job goes."""
    model = None if command is None else command.model
    return model.SERVICE if model is not None and issubclass(model, JobArguments) else SERVICE


def _choices(annotation: Any) -> list[str]:
    """Return the values that a field can have, empty unless its type enumerates them."""
    if isinstance(annotation, EnumType):
        members: list[Any] = list(annotation)
        return [str(member.value) for member in members]
    literals = [each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal]
    return [str(value) for each in literals for value in get_args(each)]


def _paths(root: type[BaseModel], typed: str) -> list[str]:
    """Return the paths of the command tree that are one word longer than the complete words in `typed`."""
    *complete, _ = typed.split(".")
    model: type[BaseModel] | None = root
    for word in complete:
        entry = find_entry(model, word) if model else None
        model = entry.model if entry else None
    return [".".join([*complete, name]) for name in (entries(model) if model else ())]
