"""nfcli: an interactive, network-style shell for the bearer tokens of MCP servers, and its Python API.

For example::

    from nfcli import NorFab

    with NorFab(inventory="inventory.yaml") as nf:
        client = nf.make_client()
        client.run_job("fastmcp", "bearer_token_list", workers="all")
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
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
    from .models.result import Result
    from .shell.client import Client
    from .shell.norfab import NorFab

    __version__: str

__all__ = [
    "AccessDeniedError",
    "Client",
    "EnvironmentFolderError",
    "InventoryError",
    "KeyFileError",
    "NfcliError",
    "NoWorkersError",
    "NorFab",
    "Result",
    "TaskError",
    "UsageError",
    "WorkerStartError",
    "__version__",
]

_HOMES = {"Client": ".shell.client", "NorFab": ".shell.norfab", "Result": ".models.result"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the worker is part of this package and must not load the shell."""
    if name == "__version__":
        return version("nfcli")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, ".models.errors"), __name__), name)
