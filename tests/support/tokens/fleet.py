"""Several workers' token stores with their tasks in one process, and a client of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import NoWorkersError
from nfcli.models.inventory.schema import Inventory
from nfcli.models.protocol.jobs import failed_result
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.jobs.task_context import TaskContext
from nfcli.worker.tasks import auth, introspection, token_sync
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context

KEY = FleetKey(bytes(range(32)))


class Fleet:
    """Workers that run tasks in the caller's thread; the client's methods are those that the shell uses.

    `clock.now` is the time of all workers. `failing` maps workers to why they fail; `before` is called with each task
    and worker before it is run.
    """

    def __init__(self, folder: Path, stack: ExitStack, *names: str, keys: dict[str, FleetKey] | None = None) -> None:
        self.inventory = Inventory.default()
        self.clock = SimpleNamespace(now=1_780_000_000.25, ticks=0.0)
        self.failing: dict[str, str] = {}
        self.before: Callable[[str, str], None] = lambda _task, _worker: None
        self.calls: list[tuple[str, str]] = []
        self.registry = TaskRegistry(auth, introspection, token_sync)
        self.workers: dict[str, TaskContext] = {}
        for name in names:
            environment = Environment(folder / name, None)
            environment.prepare()
            clocks: dict[str, Any] = {"clock": lambda: self.clock.now, "ticks": lambda: self.clock.ticks}
            key = (keys or {}).get(name, KEY)
            store = stack.enter_context(TokenStore(environment.tokens_folder(name), **clocks, fleet_key=key))
            trail = stack.enter_context(AuditTrail(environment.audit_file(name), bytes(32)))
            self.workers[name] = task_context(environment, self.registry, store, trail, name=name, client="ann-laptop")

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a task on the workers that `workers` names."""
        assert service == "fastmcp"
        targets = options.get("workers", "all")
        names = list(self.workers) if targets == "all" else list(targets)
        if all(self.failing.get(name) == "gone" for name in names):
            raise NoWorkersError(f"no worker answers of {', '.join(names)}")
        return {name: self._result(name, task, options.get("kwargs") or {}) for name in names}

    def check_workers(self, names: Sequence[str]) -> None:
        """Check that there are such workers."""
        unknown = [name for name in names if name not in self.workers]
        if unknown:
            raise NoWorkersError(f"unknown worker {', '.join(map(repr, unknown))}: there is {', '.join(self.workers)}")

    def _result(self, name: str, task: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((task, name))
        self.before(task, name)
        if name in self.failing:
            return failed_result(self.failing[name])
        return self.registry.run(self.workers[name], task, kwargs).model_dump(mode="json")

    def store(self, name: str) -> TokenStore:
        """Return a worker's token store."""
        return self.workers[name].store

    def do(self, task: str, *names: str, **kwargs: Any) -> None:
        """Run a task of token management on some workers, a second after the one before."""
        self.clock.now += 1
        for name in names:
            assert not self._result(name, task, kwargs)["failed"]

    def create(self, username: str, token: str, *names: str, **kwargs: Any) -> None:
        """Store a token on some workers."""
        self.do("bearer_token_store", *names, username=username, token=token, **kwargs)

    def delete(self, *names: str, **kwargs: Any) -> None:
        """Delete tokens on some workers."""
        self.do("bearer_token_delete", *names, **kwargs)

    def tokens(self, name: str) -> dict[str, str]:
        """Return a worker's tokens and their users."""
        return {record.token: record.username for record in self.store(name).records()}

    def digests(self) -> set[int]:
        """Return the digests of all workers: one if they agree."""
        return {worker.store.digest() for worker in self.workers.values()}
