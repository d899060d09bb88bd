"""The commands that are no tasks: the manual, and what this side knows of workers, client and inventory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from ...man.pages import list_pages, read_page
from ...man.tasks import render_tasks
from ...man.tree import json_schema, tree_lines
from ...models.commands.base import ANY_WORKER, Results
from ...models.commands.man import ManJsonSchema, ManPage, ManTasks, ManTree
from ...models.commands.show import ShowBroker, ShowClient, ShowLocalInventory, ShowWorkers
from ...models.inventory.schema import Inventory
from ...models.inventory.service import SERVICE


class ShellClient(Protocol):
    """The client, as far as the shell uses it (`shell/client/client.py`)."""

    inventory: Inventory

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = ...,
        workers: Any = ...,
        timeout: float = ...,
    ) -> Results:
        """Run a task on workers."""

    def worker_names(self, service: str = ...) -> list[str]:
        """Return the names of the workers."""

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""

    def show_broker(self) -> dict[str, Any]:
        """Return what the broker tells of itself."""

    def describe(self) -> dict[str, Any]:
        """Return what this client is."""


class LocalCommands:
    """The functions that commands name as their `handler`; each gets the checked command and returns data.

    Args:
        client: whom to ask.
        root: the command tree.
        report: takes the results of a job, tells of failures, returns the values of the workers that succeeded.
    """

    def __init__(self, client: ShellClient, root: type[BaseModel], report: Callable[[Results], dict[str, Any]]) -> None:
        self._client = client
        self._root = root
        self._report = report

    def handlers(self) -> Mapping[str, Callable[[Any], Any]]:
        """Return the functions by name."""
        return {
            "man_tree": self._tree,
            "man_tasks": self._tasks,
            "man_json_schema": self._json_schema,
            "man_page": self._page,
            "show_workers": self._workers,
            "show_broker": self._broker,
            "show_client": self._describe,
            "show_inventory": self._inventory,
        }

    def _tree(self, command: ManTree) -> str:
        return "\n".join(tree_lines(self._root, command.path))

    def _tasks(self, command: ManTasks) -> str | None:
        values = self._report(self._client.run_job(SERVICE, "list_tasks", workers=ANY_WORKER))
        return next((render_tasks(entries, command.name) for entries in values.values()), None)

    def _json_schema(self, command: ManJsonSchema) -> dict[str, Any]:
        return json_schema(self._root, command.path)

    def _page(self, command: ManPage) -> str:
        if command.topic is not None:
            return read_page(command.topic)
        pages = list_pages()
        width = max((len(topic) for topic, _ in pages), default=0)
        return "\n".join(f" {topic.ljust(width)}  {title}" for topic, title in pages)

    def _workers(self, _: ShowWorkers) -> list[dict[str, str]]:
        return self._client.show_workers()

    def _broker(self, _: ShowBroker) -> dict[str, Any]:
        return self._client.show_broker()

    def _describe(self, _: ShowClient) -> dict[str, Any]:
        return self._client.describe()

    def _inventory(self, _: ShowLocalInventory) -> dict[str, Any]:
        return self._client.inventory.redacted()
