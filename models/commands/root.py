"""The root of the command tree."""

from __future__ import annotations

from .base import CommandGroup, branch
from .fastapi import FastapiCommands, ShowFastapiCommands
from .fastmcp import FastmcpCommands
from .filesharing import FilesharingCommands, ShowFilesharingCommands
from .jobs import ShowJobs
from .man import ManCommands
from .norfab.show import ShowNorfabCommands
from .norfab.workers import NorfabCommands
from .schemas.groups import RunCommands, ServiceCommands
from .show import ShowFastmcpCommands


class ShowCommands(CommandGroup, prompt="nf[show]#"):
    """Read-only commands."""

    fastmcp: ShowFastmcpCommands = branch("Show state of FastMCP workers")
    fastapi: ShowFastapiCommands = branch("Show state of FastAPI workers")
    filesharing: ShowFilesharingCommands = branch("Show files that a fabric shares")
    norfab: ShowNorfabCommands = branch("Show workers, their jobs and logs, broker and client")
    jobs: ShowJobs = branch("Show jobs sent with nowait, their results and events")


class Root(CommandGroup, prompt="nf#"):
    """All commands. It declares `man` itself: picle would add its own otherwise."""

    fastmcp: FastmcpCommands = branch("FastMCP service")
    fastapi: FastapiCommands = branch("FastAPI service of NorFab")
    filesharing: FilesharingCommands = branch("File service of NorFab")
    norfab: NorfabCommands = branch("Workers of all services")
    show: ShowCommands = branch("Show workers, client and inventory")
    man: ManCommands = branch("Manual pages and documentation")
    run: RunCommands = branch("Run a task of any service")
    service: ServiceCommands = branch("Enter a service, to run its tasks")

    class PicleConfig(CommandGroup.PicleConfig):
        """`history_file` is None because `shell/repl/history.py` saves the history, secrets masked."""

        intro = None
        history_file = None
        use_rich = False
        newline = "\n"
