"""A service as users of NorFab write them whose task has a change approved, as NorFab's own service nornir does.

Imported by the reference, as a plugin of an inventory.
"""

from __future__ import annotations

from typing import Any

from norfab.core.worker import Job, NFPWorker, Task
from norfab.models import Result
from pydantic import BaseModel, Field


class ChangeInput(BaseModel):
    """Arguments of `change`."""

    default: bool | int | str = Field(default=False, description="Default of the question")
    timeout: int = Field(default=60, description="Seconds for the answer")


class AskingWorker(NFPWorker):
    """A worker of the reference's that asks the client of its job."""

    def __init__(
        self, inventory: Any, broker: str, worker_name: str, exit_event: Any, init_done_event: Any, **_: Any
    ) -> None:
        service = inventory[worker_name]["service"]
        super().__init__(inventory, broker, service, worker_name, exit_event)
        init_done_event.set()

    @Task(input=ChangeInput, mcp={"annotations": {"title": "Change"}})
    def change(self, job: Job, default: bool | int | str = False, timeout: int = 60) -> Result:
        """Change a device if the client agrees."""
        job.event("r1 is compared", severity="WARNING", resource=["r1"])
        answer = job.request_input("Commit?", default=default, timeout=timeout, metadata={"preview": "+ vlan 5"})
        return Result(result=answer)
