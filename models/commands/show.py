"""`show fastmcp …` asks the workers, `show norfab …` tells what this side knows."""

from __future__ import annotations

from typing import ClassVar

from ..service import GetToolsInput
from .base import Command, CommandGroup, JobArguments, branch


class ShowInventory(JobArguments):
    """The workers' inventory, secrets left out."""

    TASK: ClassVar[str] = "get_inventory"


class ShowVersion(JobArguments):
    """Versions of the worker, of Python and of the libraries."""

    TASK: ClassVar[str] = "get_version"


class ShowStatus(JobArguments):
    """Where a worker listens and how it is."""

    TASK: ClassVar[str] = "get_status"


class ShowTools(GetToolsInput, JobArguments):
    """The tools that a worker offers to MCP clients; `| json` has their schemas as well."""

    TASK: ClassVar[str] = "get_tools"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "name", "description")

    def columns(self) -> tuple[str, ...]:
        """Return the table's columns; names alone are no records."""
        return () if self.brief else self.COLUMNS


class ShowFastmcpCommands(CommandGroup):
    """What the FastMCP workers tell about themselves."""

    inventory: ShowInventory = branch("Show inventory of the workers, secrets left out")
    version: ShowVersion = branch("Show versions of the workers and their libraries")
    status: ShowStatus = branch("Show addresses and state of the workers")
    tools: ShowTools = branch("Show tools that the workers offer to MCP clients")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show-fastmcp]#"


class ShowWorkers(Command):
    """Every known worker and whether it runs."""

    HANDLER: ClassVar[str] = "show_workers"
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", "endpoint", "alive (s)", "note")


class ShowClient(Command):
    """This client: its environment and its public key."""

    HANDLER: ClassVar[str] = "show_client"


class ShowLocalInventory(Command):
    """The inventory as this side has read it, secrets left out."""

    HANDLER: ClassVar[str] = "show_inventory"


class ShowNorfabCommands(CommandGroup):
    """What is known without asking a task of a worker."""

    workers: ShowWorkers = branch("Show known workers and whether they run")
    client: ShowClient = branch("Show environment and public key of this client")
    inventory: ShowLocalInventory = branch("Show the inventory that was read, secrets left out")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show-norfab]#"


class ShowCommands(CommandGroup):
    """Commands that only look."""

    fastmcp: ShowFastmcpCommands = branch("Show what FastMCP workers tell")
    norfab: ShowNorfabCommands = branch("Show workers, client and inventory")

    class PicleConfig(CommandGroup.PicleConfig):
        """Subshell."""

        prompt = "nf[show]#"
