"""A client of the shell whose workers are dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from nfcli.models.errors import NfcliError, NoWorkersError, validation_messages
from nfcli.models.inventory.schema import Inventory
from nfcli.models.protocol.jobs import Event, Page, Result, failed_result
from nfcli.models.tasks.auth import (
    BearerTokenCheckInput,
    BearerTokenDeleteInput,
    BearerTokenListInput,
    BearerTokenStoreInput,
)

INPUTS: dict[str, type[BaseModel]] = {
    "bearer_token_store": BearerTokenStoreInput,
    "bearer_token_list": BearerTokenListInput,
    "bearer_token_delete": BearerTokenDeleteInput,
    "bearer_token_check": BearerTokenCheckInput,
}
CREATION = "2026-05-31T12:08:51.914919+02:00"


class FakeStart(NamedTuple):
    """A job that was sent."""

    uuid: str
    failed: dict[str, dict[str, Any]]


class FakeFetch(NamedTuple):
    """What the workers of a job have to say."""

    uuid: str
    results: dict[str, dict[str, Any]]
    states: dict[str, str]

    def describe(self) -> dict[str, Any]:
        """Return the states of all workers."""
        ended = {name: "failed" if result["failed"] else "completed" for name, result in self.results.items()}
        running = {name: state.lower() for name, state in self.states.items()}
        return {"uuid": self.uuid, "workers": {**running, **ended}}


class FakeClient:
    """The client as the shell sees it, with token stores in memory.

    `calls` holds the keyword arguments of every job. `failing` maps workers to what goes wrong there, `silent` to why
    no result comes from them; `raising` is raised instead of running a job. `has_pages`: lists are returned in pages.
    `events` are passed to `on_event` during each job.
    """

    def __init__(self, *workers: str) -> None:
        self.inventory = Inventory.default()
        self.workers = workers or ("fastmcp-worker-1",)
        self.tokens: dict[str, dict[str, dict[str, Any]]] = {worker: {} for worker in self.workers}
        self.failing: dict[str, str] = {}
        self.silent: dict[str, str] = {}
        self.messages: dict[str, list[str]] = {}
        self.answers: dict[str, Any] = {}
        self.raising: BaseException | None = None
        self.missing: dict[str, str] = {}
        self.has_pages = False
        self.events: list[Event] = []
        self.started: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        self.on_event: Callable[[Event], None] = lambda _: None
        self.calls: list[dict[str, Any]] = []
        self.broker: Any = None

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Run a task on the workers that `workers` names."""
        self.calls.append({"service": service, "task": task, **options})
        if self.raising is not None:
            raise self.raising
        for event in self.events:
            self.on_event(event)
        targets = options.get("workers", "all")
        names = self.workers[:1] if targets == "any" else self.workers if targets == "all" else targets
        results = {name: self._result(name, task, options.get("kwargs") or {}) for name in names}
        page = options.get("page")
        if page is not None and self.has_pages:
            results = {name: _page_of(result, page) for name, result in results.items()}
        return results

    def start_job(self, service: str, task: str, **options: Any) -> FakeStart:
        """Run a task; the results of workers that didn't fail can be fetched later."""
        uuid = f"uuid-{len(self.started) + 1}"
        results = self.run_job(service, task, **options)
        self.started[uuid] = {"service": service, "task": task, "results": results}
        return FakeStart(uuid, {name: result for name, result in results.items() if result["failed"]})

    def list_jobs(self) -> list[dict[str, Any]]:
        """Return a row for each job."""
        times = {"submitted": CREATION, "workers": list(self.workers)}
        return [
            {"uuid": uuid, **times, "service": job["service"], "task": job["task"]}
            for uuid, job in self.started.items()
        ]

    def fetch_results(self, uuid: str) -> FakeFetch:
        """Return the results of a job, but of `running` workers."""
        if uuid not in self.started:
            raise NfcliError(f"no job {uuid!r}")
        results = self.started[uuid]["results"]
        ended = {name: result for name, result in results.items() if name not in self.running}
        return FakeFetch(uuid, ended, dict.fromkeys(self.running, "STARTED"))

    def fetch_events(self, uuid: str) -> dict[str, dict[str, Any]]:
        """Return what `job_details` has of a job."""
        assert uuid in self.started
        return {name: self._result(name, "job_details", {}) for name in self.workers}

    def job_details(self, _worker: str, _arguments: None) -> dict[str, Any]:
        """Return events."""
        return {"job_events": self.events}

    def check_workers(self, names: Sequence[str]) -> None:
        """Check that there are such workers."""
        assert set(names) <= set(self.workers)

    def worker_names(self, service: str = "fastmcp") -> list[str]:
        """Return the workers' names."""
        assert service == "fastmcp"
        return list(self.workers)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker."""
        return [
            {"name": name, "service": "fastmcp", "status": "alive", "endpoint": "ipc://x", "alive (s)": "1", "note": ""}
            for name in self.workers
        ]

    def missing_workers(self) -> dict[str, str]:
        """Return the workers that are expected and away."""
        return self.missing

    def forget_worker(self, name: str) -> None:
        """Expect a worker no longer."""
        if self.missing.pop(name, None) is None:
            raise NfcliError(f"no worker {name!r} was seen before")

    def show_broker(self) -> dict[str, Any]:
        """Return nothing: there is no broker."""
        return {}

    def observe(self, task: str, workers: Sequence[str], timeout: float = 0) -> dict[str, dict[str, Any]]:
        """Run a task on these workers, as `run_job` does."""
        return self.run_job("all", task, workers=workers, timeout=timeout)

    def ask_broker(self, task: str, **kwargs: Any) -> Any:
        """Return what `broker` says, which records the request."""
        self.calls.append({"broker": task, "kwargs": kwargs})
        if isinstance(self.broker, Exception):
            raise self.broker
        return self.broker

    def describe(self) -> dict[str, Any]:
        """Return the environment and the workers."""
        return {"environment": "/somewhere", "workers": list(self.workers)}

    def _result(self, worker: str, task: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        if worker in self.silent:
            return failed_result(self.silent[worker], task=task)
        if worker in self.failing:
            result = Result(failed=True, errors=[self.failing[worker]], status="error")
        else:
            try:
                model = INPUTS[task].model_validate(kwargs) if task in INPUTS else None
                value = self.answers[task] if task in self.answers else getattr(self, task)(worker, model)
                result = Result(result=value, messages=self.messages.get(worker, []))
            except ValidationError as error:
                result = Result(failed=True, errors=validation_messages(error), status="error")
        return result.model_dump(mode="json")

    def bearer_token_store(self, worker: str, arguments: BearerTokenStoreInput) -> bool:
        """Keep a token."""
        row = {"username": arguments.username, "token": arguments.token, "age": "0:00:01", "creation": CREATION}
        self.tokens[worker][arguments.token] = {**row, "expires": arguments.expire and str(arguments.expire)}
        return True

    def bearer_token_list(self, worker: str, arguments: BearerTokenListInput) -> list[dict[str, Any]]:
        """Return rows, by user."""
        rows = self.tokens[worker].values()
        return sorted(
            (row for row in rows if arguments.username in {None, row["username"]}), key=lambda row: row["username"]
        )

    def fetch_file(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Have no file service, as without a broker."""
        raise NoWorkersError("no worker serves 'filesharing': the inventory has fastmcp")

    def token_users(self, worker: str, _: None) -> list[str]:
        """Return the names of users."""
        return sorted({row["username"] for row in self.tokens[worker].values()})

    def bearer_token_delete(self, worker: str, arguments: BearerTokenDeleteInput) -> bool:
        """Drop tokens; return whether there were any."""
        kept = {
            token: row
            for token, row in self.tokens[worker].items()
            if not (arguments.token in {None, token} and arguments.username in {None, row["username"]})
        }
        removed = len(kept) < len(self.tokens[worker])
        self.tokens[worker] = kept
        return removed

    def bearer_token_check(self, worker: str, arguments: BearerTokenCheckInput) -> bool:
        """Return whether the token is kept."""
        return arguments.token in self.tokens[worker]


def _page_of(result: dict[str, Any], page: Page) -> dict[str, Any]:
    if not isinstance(result["result"], list):
        return result
    first = int(page.after or 0)
    rows, later = result["result"][first : first + page.limit], result["result"][first + page.limit :]
    return {**result, "result": {"rows": rows, "next": str(first + page.limit) if later else None}}
