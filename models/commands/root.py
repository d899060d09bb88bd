"""The root of the command tree."""

from __future__ import annotations

from .base import CommandGroup, branch
from .fastmcp import FastmcpCommands
from .man import ManCommands
from .show import ShowCommands


class Root(CommandGroup, prompt="nf#"):
    """All commands. It declares `man` itself: picle would add its own otherwise."""

    fastmcp: FastmcpCommands = branch("FastMCP service")
    show: ShowCommands = branch("Show workers, client and inventory")
    man: ManCommands = branch("Manual pages and documentation")

    class PicleConfig(CommandGroup.PicleConfig):
        """`history_file` is None because `shell/repl/history.py` saves the history, secrets masked."""

        intro = None
        history_file = None
        use_rich = False
        newline = "\n"
