"""Complete `nf://` paths: the files that a NorFab fabric shares, by its service `filesharing`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ....models.commands.base import ANY_WORKER
from ....models.protocol.jobs import Results
from ....models.shared_files.address import SCHEME, SERVICE
from .background import Background
from .catalogue import KEY_PRESS_SECONDS

LIST_SECONDS = 1.0
KEPT_SECONDS = 10.0
MAX_FILES = 1_000


class FilesClient(Protocol):
    """The client, as far as it lists files."""

    def run_job(
        self, service: str, task: str, *, kwargs: dict[str, Any] | None = ..., workers: str = ..., timeout: float = ...
    ) -> Results:
        """Run a task; return one entry for each worker."""


class SharedFiles:
    """Lists folders of the fabric for completion, each again after 10 s. `clock` returns monotonic seconds."""

    def __init__(
        self,
        client: FilesClient,
        services: Callable[[], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._services = services
        self._clock = clock
        self._background = Background(clock=clock)
        self._known: dict[str, tuple[float, list[str]]] = {}

    def paths(self, typed: str) -> list[str]:
        """Return the paths that begin with what is typed, from what is known; never waits longer than a key press."""
        if not typed.startswith(SCHEME):
            return [SCHEME] if typed and SCHEME.startswith(typed) and SERVICE in self._services() else []
        folder = typed[: typed.rindex("/") + 1]
        kept_until, names = self._known.get(folder, (float("-inf"), []))
        if self._clock() >= kept_until and SERVICE in self._services():
            self._background.ask(folder, lambda: self._load(folder), wait_seconds=KEY_PRESS_SECONDS)
            _, names = self._known.get(folder, (0.0, names))
        return [path for name in names if (path := f"{folder}{name}").startswith(typed)]

    def _load(self, folder: str) -> None:
        results = self._client.run_job(
            SERVICE, "list_files", kwargs={"url": folder}, workers=ANY_WORKER, timeout=LIST_SECONDS
        )
        answers = [result["result"] for result in results.values() if isinstance(result.get("result"), list)]
        names = {name for answer in answers for name in answer[:MAX_FILES] if isinstance(name, str)}
        self._known[folder] = (self._clock() + KEPT_SECONDS, sorted(filter(str.isprintable, names)))
