"""Run a parsed command: a task as a job on workers, anything else through its handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ...models.commands.base import JobArguments, ShellCommand
from ...models.inventory.schema import Inventory
from ...models.inventory.service import SERVICE
from ...models.protocol.jobs import DEFAULT_TIMEOUT_SECONDS, Results, failure_reason
from ..output.console import Console


class ShellClient(Protocol):
    """The client, as far as the shell uses it; `shell/client/client.py` implements it and documents the errors."""

    inventory: Inventory

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = ...,
        workers: str | Sequence[str] = ...,
        timeout: float = ...,
    ) -> Results:
        """Run a task; return one entry for each targeted worker, failed ones included."""

    def worker_names(self, service: str = ...) -> list[str]:
        """Return the names of a service's workers."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""

    def show_broker(self) -> dict[str, Any]:
        """Return state and versions of the broker."""

    def describe(self) -> dict[str, Any]:
        """Return environment, public key and connection mode of this client."""


class Dispatcher:
    """Runs commands and prints the failures and notes of workers. Not thread-safe.

    Args:
        client: runs the jobs.
        console: where failures and notes are printed.
        handlers: the functions behind `ShellCommand.HANDLER`; each gets the command and this dispatcher, returns data.

    `has_failed` tells whether a worker failed in the latest command.
    """

    def __init__(
        self, client: ShellClient, console: Console, handlers: Mapping[str, Callable[[Any, Dispatcher], Any]]
    ) -> None:
        self.client = client
        self.has_failed = False
        self._console = console
        self._handlers = handlers

    def run(self, command: ShellCommand) -> Any:
        """Run a command; return its data, None when there is nothing to print.

        Raises:
            NfcliError: the command cannot be run at all, for instance because no worker is reachable.
        """
        self.has_failed = False
        if isinstance(command, JobArguments):
            return self._run_job(command)
        return self._handlers[command.HANDLER](command, self)

    def report(self, results: Results) -> dict[str, Any]:
        """Print why workers failed, and the messages of the others; return the others' values, sorted by worker."""
        values = {}
        for worker, result in sorted(results.items()):
            if result.get("failed"):
                self.has_failed = True
                self._console.error(f"{worker}: {failure_reason(result)}")
                continue
            values[worker] = result.get("result")
            for message in result.get("messages") or ():
                self._console.note(f"{worker}: {message}")
        return values

    def _run_job(self, command: JobArguments) -> Any:
        task, arguments = command.call()
        timeout = DEFAULT_TIMEOUT_SECONDS if command.timeout is None else command.timeout
        results = self.client.run_job(SERVICE, task, kwargs=arguments, workers=command.targets(), timeout=timeout)
        values = self.report({worker: command.check_result(result) for worker, result in results.items()})
        for note in command.notes(results):
            self._console.note(note)
        return command.merge(values) if values else None
