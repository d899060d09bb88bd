"""A question at the terminal that has to be answered in time, with prompt_toolkit."""

from __future__ import annotations

import asyncio
import math
import time

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

_COUNTDOWN_SECONDS = 0.5


def terminal_output() -> Output:
    """Return where prompts are drawn: stdout or stderr, whichever is a terminal, because results may be redirected."""
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        # Terminals that don't report their cursor position would get a warning and a second's delay at each prompt.
        output.enable_cpr = False
    return output


def ask_in_time(text: str, seconds: float) -> str | None:
    """Ask, with a countdown; return what was typed, None where nothing was within the seconds, or Ctrl-C or Ctrl-D."""
    editor: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=terminal_output())
    deadline = time.monotonic() + seconds

    def message() -> str:
        left = deadline - time.monotonic()
        return f"{text} " if left == math.inf else f"{text} {max(0, math.ceil(left))} s left: "

    async def give_up() -> None:
        await asyncio.sleep(seconds)
        editor.app.exit(exception=TimeoutError())

    def begin() -> None:
        if seconds < math.inf:
            editor.app.create_background_task(give_up())

    try:
        return editor.prompt(message, pre_run=begin, refresh_interval=_COUNTDOWN_SECONDS)
    except (TimeoutError, EOFError, KeyboardInterrupt):
        return None
