"""The shell as a picle `App`: everything that depends on names inside picle is here.

picle gives the command tree's model and the shape of an app. Its reading of lines is replaced: `Prompt` reads them and
`Session` runs them, so that words keep their quotes and errors are one line. It runs no programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from picle import App as PicleApp

from ...models.commands.root import Root
from ..output.console import Console
from ..text import interrupt_line
from .dispatch import ShellClient
from .history import HistoryFile
from .jobs.questions import QuestionDesk
from .prompt import HiddenPrompt, Prompt
from .session import Session
from .stored_tokens import StoredTokens

INTRO = "nfcli: ? for help, Tab to complete, man page for the manual, Ctrl-D to leave"


class App(PicleApp):
    """The shell at a terminal; `intro` and `notices` are printed on stderr at the start.

    The other arguments are as of `Session`.

    All its methods override picle's: a test checks that picle still has them.
    """

    def __init__(
        self,
        client: ShellClient,
        *,
        console: Console | None = None,
        questions: QuestionDesk | None = None,
        history_file: Path | None = None,
        log_file: Path | None = None,
        intro: str = INTRO,
        notices: Sequence[str] = (),
        is_strict: bool = False,
    ) -> None:
        history = HistoryFile(history_file)
        self.session = Session(
            client,
            console=console,
            questions=questions,
            secrets=HiddenPrompt(),
            history=lambda: history.lines,
            log_file=log_file,
            is_strict=is_strict,
        )
        self._notices = [intro, *notices, history.problem]
        super().__init__(Root)
        self._line_reader = Prompt(self.session, history, StoredTokens(client))

    def cmdloop(self, intro: str | None = None) -> None:
        """Read and run lines until the user leaves with Ctrl-D, `end`, or `exit` at the top.

        Ctrl-C drops the line that is being typed, or the command that runs, but does not leave the shell.
        """
        for text in filter(None, self._notices if intro is None else [intro, *self._notices[1:]]):
            self.session.console.note(text)
        while not self.session.navigator.has_left:
            try:
                self.onecmd(self._read_interactive_input())
            except KeyboardInterrupt:
                continue
            except (EOFError, BrokenPipeError):
                break
        self._line_reader.save_history()

    def onecmd(self, line: str) -> bool:
        """Run a line, or several that were pasted at once; return whether the user has left."""
        try:
            for each in line.splitlines():
                if not self.session.navigator.has_left:
                    self.session.run_line(each)
        except KeyboardInterrupt as interrupt:
            self.session.console.note(interrupt_line("cancelled", interrupt))
        return self.session.navigator.has_left

    def default(self, line: str) -> bool:
        """Run a line as `onecmd` does, where picle would parse it."""
        return self.onecmd(line)

    def process_help_command(self, line: str) -> None:
        """Print help for a line that ends in `?` or `??`."""
        self._line_reader.print_help(line)

    def do_cls(self, arg: str = "") -> None:
        """Clear the screen with escape codes, where picle would start a program."""
        self.onecmd(f"cls {arg}")

    @property
    def do_shell(self) -> NoReturn:
        """Nothing: picle's command that runs programs is not available."""
        raise AttributeError("do_shell")

    def _read_interactive_input(self, prompt: str = "", inline_help: bool = True) -> str:  # noqa: ARG002  as in picle
        """Read a line, where picle would use its own prompt session."""
        return self._line_reader.read()
