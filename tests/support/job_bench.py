"""An executor with a real store and a real audit trail, and tasks that a gate holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.jobs import JobRequest
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.lane_threads import JobLimits
from nfcli.worker.jobs.task import TaskRegistry, task
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import auth as auth_tasks
from nfcli.worker.tasks import introspection
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context

WAIT_SECONDS = 10


class Count(TaskInput):
    """Arguments of the test's tasks."""

    amount: int = 1


class Ask(TaskInput):
    """Arguments of `ask`."""

    question: str = "Commit?"
    default: Any = False
    timeout: Any = 60
    metadata: dict[str, Any] | None = None


class JobBench:
    """An executor with the auth and introspection tasks, and nine more; the gate holds three of them."""

    def __init__(self, store: TokenStore, trail: AuditTrail, folder: Path) -> None:
        self.counted = 0
        self.observed: SimpleQueue[tuple[str, str, float]] = SimpleQueue()
        self.gate, self.entered = threading.Event(), SimpleQueue[None]()
        tasks = ModuleType("tasks")
        for function in (self.count, self.hold, self.odd, self.large, self.where):
            marked = task(arguments=Count, result=Any, run_inline=function == self.where)(self._plain(function))
            setattr(tasks, marked.__name__, marked)
        changes, reads = self._plain(self.hold), self._plain(self.hold)
        changes.__name__, reads.__name__ = "hold_change", "hold_read"
        vars(tasks)["hold_change"] = task(arguments=Count, result=Any, audit="create", restricted=True)(changes)
        vars(tasks)["hold_read"] = task(arguments=Count, result=Any, is_read=True)(reads)
        self.contexts: SimpleQueue[TaskContext] = SimpleQueue()

        def report(worker: TaskContext, arguments: Count) -> str:
            for number in range(arguments.amount):
                worker.progress(f"step {number}")
            self.contexts.put(worker)
            return worker.uuid

        def ask(worker: TaskContext, arguments: Ask) -> object:
            answer = worker.request_input(arguments.question, arguments.default, arguments.timeout, arguments.metadata)
            self.contexts.put(worker)
            return answer

        vars(tasks).update(report=task(arguments=Count)(report), ask=task(arguments=Ask)(ask))
        registry = TaskRegistry(tasks, auth_tasks, introspection)
        self.worker = task_context(Environment(folder, None), registry, store, trail, service="demo")
        self.restart()

    def on_job(self, task: str, outcome: str, seconds: float) -> None:
        """Note what the executor says about a job."""
        self.observed.put((task, outcome, seconds))

    def restart(self, **limits: int) -> None:
        """Start a new executor with these limits."""
        self.executor = JobExecutor(
            self.worker, lambda key: f"name of {key}", limits=JobLimits(**limits), on_job=self.on_job
        )
        self.executor.start()

    @staticmethod
    def _plain(method: Callable[[Count], object]) -> Callable[[TaskContext, Count], object]:
        def function(_worker: TaskContext, arguments: Count) -> object:
            return method(arguments)

        function.__name__ = method.__name__
        return function

    def count(self, arguments: Count) -> int:
        """Add to the count, and return it."""
        self.counted += arguments.amount
        return self.counted

    def hold(self, _arguments: Count) -> str:
        """Wait until the gate opens."""
        self.entered.put(None)
        self.gate.wait(WAIT_SECONDS)
        return "let go"

    def odd(self, _arguments: Count) -> object:
        """Return a value that JSON doesn't have."""
        return object()

    def large(self, _arguments: Count) -> str:
        """Return 100,000 characters."""
        return "x" * 100_000

    def where(self, _arguments: Count) -> str:
        """Name the thread that runs it."""
        return threading.current_thread().name

    def submit(self, name: str, uuid: str, client: str = "c", **request: Any) -> SimpleQueue[dict[str, Any]]:
        """Submit a job; return the queue that gets its result."""
        answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        deliver = lambda payload: answers.put(json.loads(payload)["w1"])  # noqa: E731
        self.executor.submit(client, uuid, JobRequest(task=name, **request), deliver)
        return answers

    def run(self, name: str, uuid: str, client: str = "c", **request: Any) -> dict[str, Any]:
        """Submit a job and wait for its result."""
        return self.submit(name, uuid, client, **request).get(timeout=WAIT_SECONDS)
