"""Handlers of the commands that are no tasks: the manual, and the client's own view of workers and broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...man.pages import list_pages, read_page
from ...man.tasks import aligned, render_tasks
from ...man.tree import json_schema, tree_lines
from ...models.commands.base import ANY_WORKER
from ...models.commands.man import ManJsonSchema, ManPage, ManTasks, ManTree
from ...models.commands.root import Root
from ...models.inventory.service import SERVICE
from .dispatch import Dispatcher


def _man_tree(command: ManTree, _: Dispatcher) -> str:
    return "\n".join(tree_lines(Root, command.path))


def _man_tasks(command: ManTasks, dispatcher: Dispatcher) -> str | None:
    results = dispatcher.client.run_job(SERVICE, "list_tasks", workers=ANY_WORKER)
    values = dispatcher.report(results)
    return next((render_tasks(entries, command.name) for entries in values.values()), None)


def _man_json_schema(command: ManJsonSchema, _: Dispatcher) -> dict[str, Any]:
    return json_schema(Root, command.path)


def _man_page(command: ManPage, _: Dispatcher) -> str:
    if command.topic is not None:
        return read_page(command.topic)
    return "\n".join(f" {line}" for line in aligned(list_pages()))


HANDLERS: Mapping[str, Callable[[Any, Dispatcher], Any]] = {
    "man_tree": _man_tree,
    "man_tasks": _man_tasks,
    "man_json_schema": _man_json_schema,
    "man_page": _man_page,
    "show_workers": lambda _, dispatcher: dispatcher.client.show_workers(),
    "show_broker": lambda _, dispatcher: dispatcher.client.show_broker(),
    "show_client": lambda _, dispatcher: dispatcher.client.describe(),
    "show_inventory": lambda _, dispatcher: dispatcher.client.inventory.redacted(),
}
"""By the names that commands give as their `HANDLER`."""
