"""A worker whose token database is about to fail, and all that can be asked of it, with a state that it begins with."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.workers import RunningWorker, WorkerRunner

STORE, DELETE = "bearer_token_store", "bearer_token_delete"
# Each change as a command and as a job; each would be seen.
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "create-token username carol token new": (STORE, {"username": "carol", "token": "new"}),
    "create-token username alice token good expire 60": (STORE, {"username": "alice", "token": "good", "expire": 60}),
    "delete-token token good": (DELETE, {"token": "good"}),
    "delete-token username bob": (DELETE, {"username": "bob"}),
}
STORED = {"good": "alice", "b1": "bob", "b2": "bob"}
NOT_STORED = ["gone", "new"]
STATE = {
    "listed": [("alice", "good", None), ("bob", "b1", None), ("bob", "b2", None)],
    "checked": dict.fromkeys(STORED, True) | dict.fromkeys(NOT_STORED, False),
    "answered": dict.fromkeys(STORED, 200) | dict.fromkeys(NOT_STORED, 401),
}
SETTINGS = {"auth_bearer": {"max_wrong_tokens_per_minute": 0}}


def status_of_request(url: str, token: str) -> int:
    """Send an MCP request with a token; return the answer's status."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    request = urllib.request.Request(url, body, headers)  # noqa: S310  the worker's own http address
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class Site:
    """A worker, one process after the other, and clients at it; `folder` holds its database."""

    worker: RunningWorker

    def __init__(self, environment: Environment, run_worker: WorkerRunner, stack: ExitStack) -> None:
        self.environment = environment
        self.folder = environment.tokens_folder(DEFAULT_WORKER)
        self._run_worker = run_worker
        self._running = stack.enter_context(ExitStack())
        self.start()
        norfab = NorFab(environment.inventory_file)
        stack.callback(norfab.destroy)
        self._client, *self._others = [norfab.make_client() for _ in range(1 + len(CHANGES))]

    def start(self) -> None:
        """Start the worker."""
        self.worker = self._running.enter_context(self._run_worker(self.environment))

    def kill(self) -> None:
        """Kill the worker, for a next one to start."""
        self.worker.process.kill()
        self._running.close()

    def run(self, task: str, client: Client | None = None, **kwargs: Any) -> Any:
        """Run a job; return its value, or its errors."""
        (result,) = (client or self._client).run_job("fastmcp", task, kwargs=kwargs).values()
        return result["errors"] if result["failed"] else result["result"]

    def reset(self) -> None:
        """Store and delete tokens until the worker is in the state that everything begins with."""
        for username in ("alice", "bob", "carol"):
            self.run(DELETE, username=username)
        for token, username in {**STORED, "gone": "carol"}.items():
            assert self.run(STORE, username=username, token=token) is True
        assert self.run(DELETE, token="gone") is True
        assert self.state() == STATE

    def change(self) -> list[Any]:
        """Ask for all changes at once; return what each was answered."""
        with ThreadPoolExecutor(len(CHANGES)) as pool:
            jobs = [
                pool.submit(self.run, task, client, **kwargs)
                for (task, kwargs), client in zip(CHANGES.values(), self._others, strict=True)
            ]
        return [job.result() for job in jobs]

    def state(self) -> dict[str, Any]:
        """Return what the worker says of its tokens: its list, its checks, its answers to requests with them."""
        tokens = [*STORED, *NOT_STORED]
        return {
            "listed": [(row["username"], row["token"], row["expires"]) for row in self.run("bearer_token_list")],
            "checked": {token: self.run("bearer_token_check", token=token) for token in tokens},
            "answered": {token: status_of_request(self.worker.url, token) for token in tokens},
        }

    def logged(self) -> list[str]:
        """Return the errors in the worker's log."""
        lines = map(json.loads, self.environment.log_file(DEFAULT_WORKER).read_text().splitlines())
        return [line["message"] for line in lines if line["level"] == "ERROR"]
