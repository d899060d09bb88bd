"""The types of the fixtures that the interoperability tests share."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nfcli.models.environment.paths import Environment
from support.workers import RunningWorker


class FabricMaker(Protocol):
    """The type of the fixture `new_fabric`."""

    def __call__(
        self, workers: Mapping[str, Mapping[str, Any]], *, services: Mapping[str, str] | None = None, tcp: bool = False
    ) -> contextlib.AbstractContextManager[Any]:
        """Make a `fabric.Fabric`, of which nothing runs yet; the `with` block's end ends all that was started.

        `workers` and `services` are the class's; `tcp` has the broker listen on a free port instead of a socket file.
        """


class Gate:
    """What the task `walk` of service demo waits at after each step; `path` is its argument `gate`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Open for both, so that neither end waits for the other to come.
        self._pipe = os.open(path, os.O_RDWR)

    def release_step(self) -> None:
        """Let one step pass, the one that waits or the next to come."""
        os.write(self._pipe, b".")

    def remove(self) -> None:
        """Let pass who waits, and fail who comes later."""
        self.path.unlink()
        os.close(self._pipe)


class EnvironmentJoiner(Protocol):
    """The type of the fixture `joined_environment`."""

    def __call__(self, fabric: Any, *names: str, **settings: Any) -> Environment:
        """Make an environment of ours that joins a fabric, with these workers, or for clients only without any.

        `settings` are further worker keys, or replace those of the fixture `environment_factory`.
        """


class ToolSiteMaker(Protocol):
    """The type of the fixture `new_tool_site`."""

    def __call__(self, fabric: Any, workers: Mapping[str, Mapping[str, Any]]) -> contextlib.AbstractContextManager[Any]:
        """Run workers of ours on a fabric for a `with` block, by their names and keys; yield a `mcp_site.ToolSite`."""


@dataclass(frozen=True)
class DirectSite:
    """A running worker of ours without a broker, and an authorized client of the reference.

    `inventory` is what the reference's inventory says to take the worker for its broker.
    """

    environment: Environment
    worker: RunningWorker
    inventory: dict[str, Any]
    client: Any
    key_file: Path

    def authorize(self, name: str, file: Path) -> Path:
        """Authorize the client with this public key; return the path of the copied key file."""
        key_file = self.environment.clients_folder / f"{name}.key"
        shutil.copyfile(file, key_file)
        key_file.chmod(0o600)
        return key_file
