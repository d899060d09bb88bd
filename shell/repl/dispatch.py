"""Run a parsed command: a task as a job on workers; the manual and the client's own view of workers by a handler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...man.pages import list_examples, list_pages, read_example, read_page
from ...man.tasks import aligned, render_tasks
from ...man.tree import json_schema, tree_lines
from ...models.commands.base import ALL_WORKERS, CommandGroup, JobArguments, ShellCommand
from ...models.commands.fastmcp import ForgetWorker
from ...models.commands.filesharing import COPY_SECONDS, CopyFile
from ...models.commands.jobs import ShowJobs
from ...models.commands.man import ManExample, ManPage, ManTasks, ManTree
from ...models.commands.root import Root
from ...models.commands.schemas.definitions import merge_tasks
from ...models.commands.tokens import ShowTokensDiff, TokensSync
from ...models.errors import NfcliError, SharedFileError
from ...models.inventory.schema import SERVICE, Inventory
from ...models.protocol.jobs import Results, failure_reason, is_unanswered
from ..job_pages import run_in_pages
from ..monitoring.jobs import show_worker_jobs
from ..monitoring.logs import show_logs
from ..monitoring.observer import FabricObserver
from ..monitoring.workers import show_workers
from ..output.console import Console
from .jobs.submitted import JobsClient
from .services.catalogue import split_answers


class ShellClient(FabricObserver, JobsClient, Protocol):
    """The client, as far as the shell uses it; `shell/client/client.py` implements it and documents the errors."""

    inventory: Inventory

    def worker_names(self, service: str = ...) -> list[str]:
        """Return the names of a service's workers."""

    def missing_workers(self) -> dict[str, str]:
        """Return the expected workers that can't be reached, and why."""

    def forget_worker(self, name: str) -> None:
        """Expect a worker no longer that was seen before."""

    def fetch_file(
        self, url: str, *, timeout: float = ..., read: bool = ..., destination: str | Path | None = ..., **options: Any
    ) -> dict[str, Any]:
        """Fetch a file that a fabric shares; return its path or text as `content`, or an `error`."""


class Dispatcher:
    """Runs commands, prints the failures and notes of workers. `has_failed`: a worker failed in the latest command.

    `root` is the root of the command tree, which the manual draws.
    """

    def __init__(self, client: ShellClient, console: Console, root: type[CommandGroup] = Root) -> None:
        self.client = client
        self.root = root
        self.has_failed = False
        self._console = console

    def run(self, command: ShellCommand) -> Any:
        """Run a command; return its data, None when there is nothing to print.

        Raises:
            NfcliError: the command cannot be run at all, for instance because no worker is reachable.
        """
        self.has_failed = False
        if isinstance(command, JobArguments):
            if command.nowait:
                from .jobs.submitted import start_job  # noqa: PLC0415  few runs need it

                return start_job(command, self.client, self.fail)
            return self._list_whole(command) if command.is_paged else self._run_job(command)
        return _HANDLERS[command.HANDLER](command, self)

    def pages(self, command: JobArguments) -> Iterator[list[dict[str, Any]]]:
        """Run a command that has pages; yield the rows of each, requested when it is needed.

        Nothing is yielded if no worker gave a result. What a worker says, and why it failed, is printed when its first
        page has come; why one failed later, at the end.

        Raises:
            NfcliError: as `run`.
        """
        self.has_failed = False
        results, following = run_in_pages(self.client, command.job(), command.check_result)
        values = self.report(results)
        if not values:
            return
        failures = []
        for worker, rows in sorted(values.items()):
            yield command.merge({worker: rows})
            for later in following(worker):
                if later.get("failed"):
                    failures.append(f"{worker}: the list is incomplete: {failure_reason(later)}")
                else:
                    yield command.merge({worker: later.get("result")})
        for failure in failures:
            self.fail(failure)

    def _list_whole(self, command: JobArguments) -> Any:
        pages = list(self.pages(command))
        return [row for rows in pages for row in rows] if pages else None

    def report(
        self, results: Results, consequence: str = "", *, can_sync: bool = False, has_notes: bool = True
    ) -> dict[str, Any]:
        """Print why workers failed, and the messages of the others; return the others' values, sorted by worker.

        `consequence` is what it means for a worker that no result has come from it; `can_sync`: it is one whose tokens
        `fastmcp tokens sync` brings together with those of the others; `has_notes` false: no messages.
        """
        values = {}
        has_value = not all(result.get("failed") for result in results.values())
        for worker, result in sorted(results.items()):
            if result.get("failed"):
                self.has_failed = True
                advice = _advice(consequence, can_sync=can_sync and has_value) if is_unanswered(result) else ""
                self._console.error(f"{worker}: {failure_reason(result)}{advice}")
                continue
            values[worker] = result.get("result")
            for message in (result.get("messages") or ()) if has_notes else ():
                self._console.note(f"{worker}: {message}")
        return values

    def fail(self, text: str) -> None:
        """Print a line about what has failed; the command fails with it."""
        self.has_failed = True
        self._console.error(text)

    def note(self, text: str) -> None:
        """Print a line that is neither a result nor an error."""
        self._console.note(text)

    def _run_job(self, command: JobArguments) -> Any:
        consequence = command.consequence()
        try:
            results = self.client.run_job(**command.job())
        except NfcliError as error:
            if error.has_reached_none:
                error.args = (f"{error}{_advice(consequence, can_sync=False)}",)
            raise
        can_sync, is_verbose = command.SERVICE == SERVICE, command.verbose_result
        if not is_verbose:
            results = {worker: command.check_result(result) for worker, result in results.items()}
        values = self.report(results, consequence, can_sync=can_sync, has_notes=not is_verbose)
        for note in command.notes(results):
            self._console.note(note)
        if is_verbose:
            return dict(sorted(results.items()))
        return command.merge(values) if values else None


def _advice(consequence: str, *, can_sync: bool) -> str:
    """Return what is to be said of a worker without a result; `can_sync`: another worker has made the change."""
    if not consequence:
        return ""
    return f"; {consequence}: repeat this{', or run fastmcp tokens sync' if can_sync else ''}"


def _man_tree(command: ManTree, dispatcher: Dispatcher) -> str:
    return "\n".join(tree_lines(dispatcher.root, command.path, has_options=command.has_options))


def _man_tasks(command: ManTasks, dispatcher: Dispatcher) -> str | None:
    results = dispatcher.client.run_job(command.service, "list_tasks", workers=ALL_WORKERS)
    answers, problems = split_answers(results)
    if not answers:
        dispatcher.report(results)
        return None
    for problem in problems.values():
        dispatcher.note(problem)
    tasks = merge_tasks(command.service, answers, sorted(answers))
    if command.brief:
        return "\n".join(tasks)
    return render_tasks(tasks.values(), command.task or command.name)


def _man_page(command: ManPage, _: Dispatcher) -> str:
    if command.topic is not None:
        return read_page(command.topic)
    return "\n".join(f" {line}" for line in aligned(list_pages()))


def _man_example(command: ManExample, _: Dispatcher) -> str:
    if command.file is not None:
        return read_example(command.file)
    return "\n".join(f" {name}" for name in list_examples())


def _forget_worker(command: ForgetWorker, dispatcher: Dispatcher) -> dict[str, bool]:
    dispatcher.client.forget_worker(command.worker)
    dispatcher.note(f"{command.worker} keeps the tokens that it has; once it is seen again, it is expected again")
    return {command.worker: True}


def _copy_file(command: CopyFile, dispatcher: Dispatcher) -> str:
    destination = None if command.destination is None else Path(os.path.expanduser(command.destination))  # noqa: PTH111
    fetched = dispatcher.client.fetch_file(
        command.url,
        timeout=command.timeout or COPY_SECONDS,
        read=command.read,
        destination=destination,
        overwrite=command.overwrite,
    )
    if fetched["error"] is not None:
        raise SharedFileError(fetched["error"])
    return str(fetched["content"]).removesuffix("\n")  # the console ends the last line


def _show_jobs(command: ShowJobs, dispatcher: Dispatcher) -> Any:
    from .jobs.submitted import show_jobs  # noqa: PLC0415  few runs need it

    return show_jobs(command, dispatcher.client, report=dispatcher.report, fail=dispatcher.fail)


def _tokens_diff(command: ShowTokensDiff, dispatcher: Dispatcher) -> Any:
    from ..replication.commands import show_differences  # noqa: PLC0415  few runs need it

    return show_differences(command, dispatcher.client, fail=dispatcher.fail, note=dispatcher.note)


def _tokens_sync(command: TokensSync, dispatcher: Dispatcher) -> Any:
    from ..replication.commands import synchronize  # noqa: PLC0415  few runs need it

    return synchronize(command, dispatcher.client, fail=dispatcher.fail, note=dispatcher.note)


_HANDLERS: Mapping[str, Callable[[Any, Dispatcher], Any]] = {
    "man_tree": _man_tree,
    "man_tasks": _man_tasks,
    "man_json_schema": lambda command, dispatcher: json_schema(dispatcher.root, command.path),
    "man_page": _man_page,
    "man_example": _man_example,
    "forget_worker": _forget_worker,
    "copy_file": _copy_file,
    "tokens_diff": _tokens_diff,
    "tokens_sync": _tokens_sync,
    "show_workers": lambda command, dispatcher: show_workers(command, dispatcher.client, fail=dispatcher.fail),
    "show_norfab_jobs": lambda command, dispatcher: show_worker_jobs(command, dispatcher.client, fail=dispatcher.fail),
    "show_logging": lambda command, dispatcher: show_logs(command, dispatcher.client, fail=dispatcher.fail),
    "show_jobs": _show_jobs,
    "show_broker": lambda _, dispatcher: dispatcher.client.show_broker(),
    "show_client": lambda _, dispatcher: dispatcher.client.describe(),
    "show_inventory": lambda _, dispatcher: dispatcher.client.inventory.redacted(),
}
"""By the names that commands give as their `HANDLER`."""
