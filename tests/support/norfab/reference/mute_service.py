"""A service that spoils discovery: what it says when it is asked for its tasks is nothing, or nothing that fits.

Imported by the reference, as a plugin of an inventory; what `list_tasks` returns is the worker's inventory key
`answer`, and without one it doesn't return.
"""

from __future__ import annotations

import threading
from typing import Any

from norfab.core.worker import NFPWorker, Task
from norfab.models import Result


class MuteWorker(NFPWorker):
    """A worker of the reference's that doesn't say what it can do."""

    def __init__(
        self, inventory: Any, broker: str, worker_name: str, exit_event: Any, init_done_event: Any, **_: Any
    ) -> None:
        service = inventory[worker_name]["service"]
        super().__init__(inventory, broker, service, worker_name, exit_event)
        self.mute_inventory = self.load_inventory()
        init_done_event.set()

    @Task()
    def list_tasks(self, name: str | None = None, brief: bool = False) -> Result:  # noqa: ARG002
        """Return the inventory's `answer`."""
        if "answer" not in self.mute_inventory:
            threading.Event().wait()
        return Result(result=self.mute_inventory["answer"])
