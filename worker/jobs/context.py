"""The context that a plugin's task gets: the worker and the job, as far as plugins are promised to see them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...models.errors import TaskError
from ...models.inventory.schema import WorkerInventory
from .channels.base import NO_CHANNEL, Channel, EventStatus, Severity, TaskEvent
from .channels.question import make_request

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.protocol.jobs import Results


class Reach(Protocol):
    """What runs jobs and fetches files for a task."""

    def run_job(
        self, service: str, task: str, kwargs: Mapping[str, Any] | None, workers: str | Sequence[str], timeout: float
    ) -> Results:
        """Run a task on workers."""

    def fetch_file(self, url: str, timeout: float) -> Path:
        """Fetch a shared file."""


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
        cancelled: set when the result is not wanted any more: the client has cancelled the job, or the MCP client that
            called the task has cancelled the call or disconnected, or its token was deleted. A task that waits should
            wait for it too, and return.
        channel: the way to the client, for `event`, `progress` and `request_input`.
        reach: what `run_job` and `fetch_file` use.
    """

    name: str
    service: str
    inventory: WorkerInventory
    stopping: threading.Event
    uuid: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    channel: Channel = field(default=NO_CHANNEL, repr=False)
    reach: Reach | None = field(default=None, repr=False)

    def event(
        self,
        message: str,
        *,
        severity: Severity = "INFO",
        status: EventStatus = "running",
        resource: str | list[str] = "",
    ) -> None:
        """Tell the client something about the job: one line of at most 1,000 characters.

        `resource` names what the line is about, such as a device. It may be called from any thread, as often as needed:
        it doesn't block. Events beyond the first 20 are limited to 10 a second, others are dropped. Nothing is sent
        after the job's end.

        Raises:
            TaskError: severity or status is none of NorFab's.
        """
        self.channel.send(TaskEvent(message, severity, status, resource))

    def progress(self, line: str) -> None:
        """Tell the client how far the job is; the same as `event` with the line alone."""
        self.event(line)

    def request_input(
        self, question: str, default: Any = False, timeout: float = 120, metadata: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask the client, which sent the job or called the tool; wait for its answer and return it.

        The type of `default` says what is asked for: yes or no (a bool), an integer, a number, or text (a string or
        None). Without an answer within `timeout` seconds, 1 to 3,600, or if the client declines, the result is False
        for yes or no, whatever the default, and else the default. The question ends with the client's own timeout too,
        and at an MCP client after 10 minutes. `metadata` has JSON values for the client; clients show
        `metadata["preview"]` above the question.

        Other jobs don't wait meanwhile. A client may have 5 jobs that have asked, and a job one open question.

        Raises:
            TaskError: the client can't be asked, the job was cancelled, or the worker is stopping.
        """
        return self.channel.ask(make_request(question, default, timeout, metadata))

    def run_job(
        self,
        service: str,
        task: str,
        kwargs: Mapping[str, Any] | None = None,
        workers: str | Sequence[str] = "all",
        timeout: float = 60,
    ) -> Results:
        """Run a task and return `{worker: Result as a dict}`, as a client's `run_job` does.

        In a fabric tasks of every service are reached, in direct mode those of this worker. `timeout` is in seconds,
        for the answers of other workers, and ends with the client's own; this worker's task is run in this thread.
        Restricted tasks, such as those that manage tokens, aren't reached. Where an MCP client or another worker has
        called the task, it reaches the tools that this worker publishes, and their guardrails apply.

        Raises:
            TaskError: the task isn't reached, no worker has it, jobs are nested more than 5 deep, or the result of the
                calling task is not wanted any more. That a worker failed is said by its result instead.
        """
        return self._reach().run_job(service, task, kwargs, workers, timeout)

    def fetch_file(self, url: str, timeout: float = 60) -> Path:
        """Fetch a file that the fabric shares, `nf://…`, and return where it is: in a private folder of this worker.

        It comes whole, its size and checksum compared, within `timeout` seconds, and isn't fetched again while it is
        the same. Don't change it. Where an MCP client or another worker has called the task, this worker must publish
        the tool `service_filesharing__task_fetch_file`.

        Raises:
            TaskError: it can't be fetched, or may not be.
        """
        return self._reach().fetch_file(url, timeout)

    def _reach(self) -> Reach:
        if self.reach is None:
            raise TaskError("this context runs no jobs: it belongs to no call of a task")
        return self.reach
