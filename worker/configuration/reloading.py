"""Read the inventory again while a worker runs (SIGHUP): what can change without a restart, all of it or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ...models.environment.paths import Environment
from ...models.errors import InventoryError
from ...models.inventory.schema import WorkerInventory
from ..logging import reopen_log_file
from .loading import load_configuration

log = logging.getLogger(__name__)

Prepare = Callable[[WorkerInventory], Callable[[], None]]
"""Reads what a part needs of an inventory, and raises an `NfcliError` if it can't be used; returns what applies it."""


class Reloader:
    """Applies changes of a worker's inventory to the parts that are added, each with the keys that it reads.

    `inventory` is what is in force.
    """

    def __init__(self, environment: Environment, name: str, inventory: WorkerInventory) -> None:
        self.inventory = inventory
        self._environment = environment
        self._name = name
        self._parts: list[tuple[tuple[str, ...], Prepare]] = []
        self._lock = asyncio.Lock()

    def add(self, *keys: str, prepare: Prepare) -> None:
        """Add a part: `prepare` runs in a thread, what it returns on the loop."""
        self._parts.append((keys, prepare))

    async def reload(self) -> str:
        """Reopen the log, read the inventory again and apply it; return what was done, in a line.

        Raises:
            NfcliError: the inventory, or a file that it names, can't be used; nothing has changed.
        """
        async with self._lock:
            reopen_log_file()
            new = await asyncio.to_thread(self._read)
            later = []
            tools = self.inventory.tools
            if new.tools.timeout != tools.timeout:  # running calls and the fabric have it
                new = new.model_copy(update={"tools": new.tools.model_copy(update={"timeout": tools.timeout})})
                later.append("tools.timeout")
            keys = {key for part, _ in self._parts for key in part}
            changed = [key for key in type(new).model_fields if getattr(new, key) != getattr(self.inventory, key)]
            effective = self.inventory.model_copy(update={key: getattr(new, key) for key in changed if key in keys})
            steps = [await asyncio.to_thread(prepare, effective) for _, prepare in self._parts]
            for apply in steps:
                apply()
            self.inventory = effective
            return _summary(
                [key for key in changed if key in keys], [key for key in changed if key not in keys] + later
            )

    def _read(self) -> WorkerInventory:
        found = load_configuration(self._environment, self._name)
        if isinstance(found, str):
            raise InventoryError(f"the service of worker {self._name} is {found} now: stop the worker")
        return found.inventory


def _summary(applied: list[str], postponed: list[str]) -> str:
    text = f"in force now: {', '.join(applied)}" if applied else "nothing to apply"
    return f"{text}; changed at the next start: {', '.join(postponed)}" if postponed else text
