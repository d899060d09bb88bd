"""nfcli: an interactive, network-style shell for the bearer tokens of MCP servers, and its Python API.

For example::

    from nfcli import NorFab

    with NorFab(inventory="inventory.yaml") as nf:
        client = nf.make_client()
        client.run_job("fastmcp", "bearer_token_list", workers="all")

Plugins of workers take `task`, `TaskInput`, `ToolHints` and `WorkerContext` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models.errors import (
        AccessDeniedError,
        EnvironmentFolderError,
        InventoryError,
        KeyFileError,
        NfcliError,
        NoWorkersError,
        TaskError,
        UsageError,
        WorkerStartError,
    )
    from .models.protocol.jobs import Result
    from .models.tasks.base import TaskInput
    from .shell.client.asynchronous import AsyncClient, AsyncJob
    from .shell.client.client import Client
    from .shell.client.jobs.job import Job
    from .shell.client.jobs.questions import Question
    from .shell.client.norfab import NorFab
    from .shell.client.token_verifier import BearerTokenVerifier
    from .worker.jobs.context import WorkerContext
    from .worker.jobs.task import ToolHints, task

    __version__: str

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncJob",
    "BearerTokenVerifier",
    "Client",
    "EnvironmentFolderError",
    "InventoryError",
    "Job",
    "KeyFileError",
    "NfcliError",
    "NoWorkersError",
    "NorFab",
    "Question",
    "Result",
    "TaskError",
    "TaskInput",
    "ToolHints",
    "UsageError",
    "WorkerContext",
    "WorkerStartError",
    "__version__",
    "task",
]

_HOMES = {
    "BearerTokenVerifier": ".shell.client.token_verifier",
    "AsyncClient": ".shell.client.asynchronous",
    "AsyncJob": ".shell.client.asynchronous",
    "Job": ".shell.client.jobs.job",
    "Question": ".shell.client.jobs.questions",
    "Client": ".shell.client.client",
    "NorFab": ".shell.client.norfab",
    "Result": ".models.protocol.jobs",
    "TaskInput": ".models.tasks.base",
    "ToolHints": ".worker.jobs.task",
    "WorkerContext": ".worker.jobs.context",
    "task": ".worker.jobs.task",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: worker, shell and plugins load no more than they need."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  saves 20 ms of each import of the package

        return version("nfcli")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, ".models.errors"), __name__), name)
