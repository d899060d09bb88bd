"""What a client asks of a broker, answered by a worker that stands in its place in direct mode.

NorFab's shell shows broker and workers with these requests, and needs each of them answered in the broker's shape. All
but the list of workers are made from the results of the worker's own tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ...models.errors import TaskError
from ...models.protocol.frames import BROKER_SERVICE, decode_object
from ...models.protocol.jobs import JobRequest
from ..jobs.executor import JobExecutor
from ..jobs.task_context import TaskContext

Answer = Callable[[Any], None]
"""Sends the answer to one request; any thread may call it."""


class BrokerRequests:
    """Answers management requests; used by the thread that receives them."""

    def __init__(self, worker: TaskContext, executor: JobExecutor) -> None:
        self._worker = worker
        self._executor = executor
        self._shapes: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
            "get_stats": ("get_stats", self._stats),
            "get_status": ("get_worker_status", self._status),
            "show_broker_inventory": ("get_inventory", self._inventory),
            "show_broker_version": ("get_version", lambda versions: versions),
        }

    def handle(self, service: str, client: str, request: dict[str, Any], answer: Answer) -> None:
        """Answer a request now, or once the task that it takes has run.

        A client that may not send more jobs gets the reason as the answer.
        """
        task = request.get("task")
        if service != BROKER_SERVICE or not isinstance(task, str):
            answer(_unsupported(task))
        elif task == "show_workers":
            answer(self._workers(request.get("kwargs")))
        elif task == "get_logs":
            answer([])  # the worker's own come from its task of that name
        elif task in self._shapes:
            self._run(*self._shapes[task], client, answer)
        else:
            answer(_unsupported(task))

    def _run(self, task: str, shape: Callable[[dict[str, Any]], Any], client: str, answer: Answer) -> None:
        def deliver(payload: bytes) -> None:
            result = decode_object(payload)[self._worker.name]
            answer("; ".join(result["errors"]) if result["failed"] else shape(result["result"]))

        try:
            # Not under the request's uuid, which may be that of a job.
            self._executor.submit(client, uuid4().hex, JobRequest(task=task), deliver)
        except TaskError as error:
            answer(str(error))

    def _workers(self, filters: Any) -> list[dict[str, str]]:
        wanted = filters if isinstance(filters, dict) else {}
        row = {"name": self._worker.name, "service": self._worker.service, "status": "alive"}
        is_wanted = wanted.get("service") in {None, "", "all", self._worker.service} and wanted.get("status") != "dead"
        if not is_wanted:
            return [dict.fromkeys(row, "")]
        uptime = str(int(self._worker.clock() - self._worker.started))
        return [{**row, "holdtime": "", "keepalives tx/rx": "", "alive (s)": uptime}]

    def _stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        kept = ("schema_version", "collected_at", "name", "status", "process", "messaging")
        about = {"name": self._worker.name, "service": self._worker.service, "status": "alive"}
        counts = {key: stats[key] for key in ("keepalives_sent", "keepalives_received")}
        worker = {**about, "holdtime_seconds": None, "uptime_seconds": stats["process"]["uptime_seconds"], **counts}
        return {
            **{key: stats[key] for key in kept},
            "role": "broker",
            "endpoint": self._worker.endpoint,
            "worker_count": 1,
            "service_count": 1,
            "workers": [worker],
        }

    def _status(self, status: dict[str, Any]) -> dict[str, Any]:
        directories, security = status["directories"], status["security"]
        return {
            "name": self._worker.name,
            "role": "broker",
            "status": status["status"],
            "endpoint": self._worker.endpoint,
            "directories": {**directories, "broker_base_dir": directories["base_dir"]},
            "security": {
                "broker_private_key_file": security["worker_private_key_file"],
                "broker_public_key_file": security["worker_private_key_file"].removesuffix("_secret"),
                "zmq_auth": security["zmq_auth"],
                "ip_allowlist": ["*"],
            },
        }

    def _inventory(self, inventory: dict[str, Any]) -> dict[str, Any]:
        name = self._worker.name
        return {
            "broker": {"endpoint": self._worker.endpoint},
            "workers": {name: [inventory]},
            "topology": {"workers": [name], "broker": False},
            "logging": {},
            "client": {},
            "hooks": {},
            "plugins": {},
        }


def _unsupported(task: object) -> str:
    return f"Unsupported task {task[:64] if isinstance(task, str) else type(task).__name__!r}"
