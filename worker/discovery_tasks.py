"""The task that looks for other services on demand."""

from __future__ import annotations

from ..models.errors import NfcliError, TaskError
from ..models.result import Result
from ..models.service import DiscoverInput
from .context import WorkerContext
from .tasks import task


@task(arguments=DiscoverInput, result=dict[str, list[str]], mcp=False)
def discover(worker: WorkerContext, arguments: DiscoverInput) -> Result:
    """Ask the other services of the fabric for their tasks, publish these as MCP tools, and name them by service.

    The worker does so by itself when a service shows up; this is for tasks that changed since. What is published of a
    service that doesn't answer stays.
    """
    if worker.discovery is None:
        raise TaskError("this worker has no broker: there are no other services to discover")
    try:
        found = worker.discovery.discover(arguments.service, tell=worker.progress)
    except NfcliError as error:
        raise TaskError(str(error)) from None
    return Result(
        result=found.tools, messages=[f"service {service}: {problem}" for service, problem in found.problems.items()]
    )
