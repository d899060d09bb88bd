"""The context that a plugin's task gets: the worker and the job, as far as plugins are promised to see them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ...models.inventory.schema import WorkerInventory


def discard_progress(_line: str) -> None:
    """Discard a line of progress: no client is waiting for it."""


@dataclass(kw_only=True)
class WorkerContext:
    """The worker that runs a task, and the job that it runs the task for.

    This is the contract with plugins: the attributes below keep their names, types and meanings, and none is to be
    assigned. Attributes that aren't listed here aren't available to plugins.

    Attributes:
        name: the worker's name in the inventory.
        service: the name of its service, `fastmcp`.
        inventory: its configuration, validated and read-only.
        stopping: set when the worker begins to stop. A task that waits should wait for it too, and return; after 3 s
            the process ends regardless of running tasks.
        uuid: the job's name; empty when an MCP client calls the task as a tool.
        cancelled: set when the result is not wanted any more: the MCP client that called the task has cancelled the
            call or disconnected, or its token was deleted. A task that waits should wait for it too, and return. It is
            never set for a job.
        progress: sends the client one line of at most 1,000 characters about how far the job is. It may be called from
            any thread, as often as needed: it neither blocks nor raises. Lines beyond the first 20 are limited to 10 a
            second, others are dropped. It does nothing after the job's end, or when an MCP client calls the task.
    """

    name: str
    service: str
    inventory: WorkerInventory
    stopping: threading.Event
    uuid: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[str], None] = discard_progress
