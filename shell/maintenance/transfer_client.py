"""The client of a transfer, which carries tokens between a file and one worker."""

from __future__ import annotations

from typing import Any, Self

from ...models.errors import NoWorkersError, UsageError
from ...models.inventory.service import SERVICE
from ..client.client import Client
from ..output.console import Console
from .worker_tasks import WorkerTasks

_ALL_PERCENT = 100


def only_worker(client: Client, worker: str | None) -> str:
    """Return `worker`, or the name of the only worker if that is None.

    Raises:
        UsageError: no worker is named, and there are several.
        NoWorkersError: no worker serves `fastmcp`.
    """
    names = client.worker_names(SERVICE)
    if worker is not None or len(names) == 1:
        return worker or names[0]
    if not names:
        raise NoWorkersError(f"no worker serves {SERVICE!r}: start one with nfcli -w")
    raise UsageError(f"each worker has its own tokens: name one with --worker: {', '.join(names)}")


class TransferClient(WorkerTasks):
    """Runs the tasks of a transfer; writes the worker's notes and, at a terminal, the progress to stderr."""

    def __init__(self, client: Client, worker: str, console: Console) -> None:
        super().__init__(client, worker, error_prefix=f"{worker}: ")
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.draw("")

    def show_progress(self, done: int, size: int) -> None:
        """Show how much of the transfer is done, at a terminal."""
        if self._console.can_draw:
            self._console.draw(f"{self._worker}: {_ALL_PERCENT * done // size} %")

    def _run(self, task: str, seconds: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        result = super()._run(task, seconds, kwargs)
        for message in result.get("messages") or ():
            self._console.note(f"{self._worker}: {message}")
        return result
