"""What a plugin's task reaches beyond its own function: tasks of its worker and of other services, shared files.

A task never does more for its caller than the caller could do itself:

* What is restricted, the management of tokens for instance, isn't reached at all: its jobs are signed by the client
  that is answerable for them, and no signature goes on to another job.
* Where an MCP client has called the task, or another worker, which may do so for one, only tools that this worker
  publishes are reached, with their guardrails for arguments and results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from pydantic_core import from_json

from ...models.errors import NfcliError, TaskError
from ...models.protocol.frames import ALL, ANY
from ...models.protocol.jobs import Results, check_timeout
from ...models.protocol.pending_job import OnStream
from ...models.shared_files.address import SERVICE as FILES
from ...models.shared_files.address import path_parts
from ...models.shared_files.fetching import fetch, make_place
from ...models.tasks.auth import is_token_task
from ...models.tasks.tools import tool_name
from .encoding import encode_result

if TYPE_CHECKING:
    import threading

    from ...models.environment.paths import Environment
    from ..fabric.client import FabricClient
    from .context import WorkerContext
    from .task import TaskRegistry

MAX_DEPTH: Final = 5
"""How many jobs may have led to one another: tasks that run each other in a circle end there."""

_POLL_SECONDS = 0.2


class Tool(Protocol):
    """A published tool, as far as its rules are applied; `worker/tools/definitions.py` has it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def guardrails(self) -> Any:
        """Its rules for arguments and results."""

    def refusal(self, given: dict[str, Any], read_arguments: Callable[..., Mapping[str, Any]]) -> str | None:
        """Return why a call with these arguments is refused, or None."""


class CallingTask(Protocol):
    """The context of a call of a task; `TaskContext` documents it."""

    name: str
    service: str
    uuid: str
    environment: Environment
    registry: TaskRegistry
    fabric: FabricClient | None
    cancelled: threading.Event
    stopping: threading.Event
    is_relayed: bool
    depth: int

    @property
    def seconds_left(self) -> Callable[[], float]:
        """What returns for how long the client of the job still waits."""

    def find_tool(self, name: str) -> Tool | None:
        """Return the tool of this name that the caller of the task could call, None if there is none."""

    def deeper(self) -> WorkerContext:
        """Return the context of a task that this one runs."""


class Call(NamedTuple):
    """A job to send; it may take `seconds`."""

    service: str
    task: str
    kwargs: dict[str, Any]
    workers: str | Sequence[str]
    seconds: float
    on_stream: OnStream | None = None


class TaskReach:
    """Runs jobs and fetches files for a task of `worker`, which is the context of one call; any thread may use it."""

    def __init__(self, worker: CallingTask) -> None:
        self._worker = worker

    def run_job(
        self, service: str, task: str, kwargs: Mapping[str, Any] | None, workers: str | Sequence[str], timeout: float
    ) -> Results:
        """Run a task as `WorkerContext.run_job` says.

        Raises:
            TaskError: it isn't reached, the job can't be sent, or the result of the calling task isn't wanted any more.
        """
        arguments = dict(kwargs or {})
        try:
            call = Call(service, task, arguments, workers, self._seconds(timeout))
            tool = self._check(service, task, arguments)
            results = self._run(call)
        except NfcliError as error:
            raise error if isinstance(error, TaskError) else TaskError(str(error)) from None
        return results if tool is None else tool.guardrails.filter_results(tool.name, results)

    def fetch_file(self, url: str, timeout: float) -> Path:
        """Fetch a file as `WorkerContext.fetch_file` says.

        Raises:
            TaskError: as `run_job`; or the file can't be fetched or written.
        """
        try:
            seconds = self._seconds(timeout)
            parts = path_parts(url)
            self._check(FILES, "fetch_file", {"url": url})
            place = make_place(self._worker.environment.fetched_folder(self._worker.name), parts)
            fetch(_FileJobs(self), url, place, timeout=seconds, overwrite=True)
        except NfcliError as error:
            raise error if isinstance(error, TaskError) else TaskError(str(error)) from None
        return place

    def send(self, call: Call) -> Results:
        """Run a task on other workers and wait for it; NfcliError if that isn't possible."""
        return self._await(self._submit(call))

    def _seconds(self, timeout: float) -> float:
        """Return for how long the task may wait: not longer than its own client does."""
        left = self._worker.seconds_left()
        if left <= 0:
            raise TaskError("the client no longer waits for this task")
        return min(check_timeout(timeout), left)

    def _check(self, service: str, task: str, kwargs: dict[str, Any]) -> Tool | None:
        """Check that the caller may have this task run; return its tool where only tools are reached."""
        worker = self._worker
        if worker.depth >= MAX_DEPTH:
            raise TaskError(f"jobs of tasks are nested more than {MAX_DEPTH} deep: {task} probably leads to itself")
        if service == ALL:
            raise TaskError("a task runs jobs of one service at a time: name it instead of all")
        spec = worker.registry.find(task) if service == worker.service else None
        if is_token_task(task) or (spec is not None and spec.restricted):
            raise TaskError(f"task {task} is restricted: tasks of plugins can't run it, send the job from a client")
        if not worker.is_relayed:
            return None
        tool = worker.find_tool(tool_name(service, task))
        if tool is None:
            raise TaskError(
                f"task {task} of service {service} is no tool that worker {worker.name} publishes: "
                "for MCP clients and other workers only those can be run"
            )
        problem = tool.refusal(kwargs, worker.registry.read_arguments)
        if problem is not None:
            raise TaskError(problem)
        return tool

    def _run(self, call: Call) -> Results:
        """Run a task on its workers; this one runs it here and now, so that it never waits for a thread of its own."""
        own = self._worker.name
        if call.service != self._worker.service:
            return self.send(call)
        names = self._names(call.workers)
        others = [name for name in names if name != own]
        future = self._submit(call._replace(workers=others)) if others else None
        results = {own: self._run_here(call.task, call.kwargs)} if own in names else {}
        if future is not None:
            results |= self._await(future)
        return dict(sorted(results.items()))

    def _names(self, workers: str | Sequence[str]) -> list[str]:
        """Return the names of workers of the own service."""
        worker = self._worker
        if workers == ANY:
            return [worker.name]
        if workers != ALL:
            return [workers] if isinstance(workers, str) else list(workers)
        rows = [] if worker.fabric is None else worker.fabric.workers()
        return sorted({worker.name, *(row["name"] for row in rows if row["service"] == worker.service)})

    def _run_here(self, task: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        worker = self._worker
        result = worker.registry.run(worker.deeper(), task, kwargs, uuid=worker.uuid)
        found: dict[str, Any] = from_json(encode_result(worker.name, result))[worker.name]
        return found

    def _submit(self, call: Call) -> Future[Results]:
        worker = self._worker
        if worker.fabric is None:
            raise TaskError(
                f"worker {worker.name} has no broker: its tasks reach its own tasks alone, service {worker.service}"
            )
        return worker.fabric.submit(
            *(call.service, call.task, call.kwargs),
            timeout=call.seconds,
            target=call.workers,
            on_stream=call.on_stream,
            depth=worker.depth + 1,
        )

    def _await(self, future: Future[Results]) -> Results:
        """Wait for the results, which come or fail within the job's timeout."""
        worker = self._worker
        while not future.done():
            if worker.cancelled.is_set() or worker.stopping.is_set():
                future.cancel()
                raise TaskError("the result is not wanted any more: the wait for another task has ended")
            wait([future], timeout=_POLL_SECONDS)
        return future.result()


class _FileJobs:
    """The jobs of `fetch`, sent by a task."""

    def __init__(self, reach: TaskReach) -> None:
        self._reach = reach

    def run_job(
        self,
        service: str,
        task: str,
        *,
        kwargs: dict[str, Any] | None = None,
        workers: str | Sequence[str] = ALL,
        timeout: float = 60.0,
        on_stream: OnStream | None = None,
    ) -> Results:
        """Run a job of the file service."""
        return self._reach.send(Call(service, task, kwargs or {}, workers, timeout, on_stream))
