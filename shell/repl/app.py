"""The interactive shell: picle's `App` around a `Session`, with a prompt, help keys, completion and history.

picle gives the prompt session and the places to hook in. What it does with a line is replaced: lines go to the session,
where words keep their quotes and errors are one line. Nothing here runs operating-system commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from picle import App as PicleApp
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from ...models.errors import UsageError
from ..output.progress_line import ProgressLine
from ..syntax.lexer import HELP, VERBOSE_HELP, split_typed
from .completion import complete
from .history import HistoryFile, redacted
from .local_commands import ShellClient
from .session import SHELL_WORDS, Session

INTRO = "nfcli: ? lists what can be typed, Tab completes it, man page has the manual, Ctrl-D leaves"


class App(PicleApp):
    """The shell at a terminal.

    Args:
        client: runs the jobs.
        progress: shows how they come along, and where output goes.
        history_file: where lines are kept, secrets masked; None: nowhere.
        log_file: where details of internal errors are kept; None: nowhere.
        intro: printed on stderr at the start; empty: nothing.
    """

    def __init__(
        self,
        client: ShellClient,
        *,
        progress: ProgressLine | None = None,
        history_file: Path | None = None,
        log_file: Path | None = None,
        intro: str = INTRO,
    ) -> None:
        self._prompt_session: PromptSession[str] | None = None  # type: ignore[assignment]
        self._last_inline_help: tuple[str, int] | None = None  # type: ignore[assignment]
        self.lines = HistoryFile(history_file)
        self.session = Session(
            client,
            progress=progress,
            secrets=HiddenPrompt(),
            history=lambda: self.lines.lines,
            log_file=log_file,
        )
        self._greeting = intro
        super().__init__(self.session.root)
        self._history = PromptHistory(self.lines, self.session)  # type: ignore[assignment]
        self._prompt_completer = TabCompleter(self.session)  # type: ignore[assignment]

    def loop(self) -> None:
        """Read and run lines until the user leaves with Ctrl-D, `end`, or `exit` at the top.

        Ctrl-C drops the line that is being typed, or the command that runs, and not the shell.
        """
        console = self.session.console
        for text in filter(None, (self._greeting, self.lines.problem)):
            console.note(text)
        while not self.session.has_ended:
            try:
                self.onecmd(self._read_interactive_input(self.session.prompt))
            except KeyboardInterrupt:
                continue
            except (EOFError, BrokenPipeError):
                break

    def cmdloop(self, intro: str | None = None) -> None:
        """Do what picle calls by this name: see `loop`."""
        self._greeting = self._greeting if intro is None else intro
        self.loop()

    def onecmd(self, line: str) -> bool:
        """Run a line, or several that were pasted at once; return whether the user has left."""
        try:
            for each in line.splitlines():
                if not self.session.has_ended:
                    self.session.run_line(each)
        except KeyboardInterrupt:
            self.session.console.note("cancelled")
        return self.session.has_ended

    def default(self, line: str) -> bool:
        """Run a line: picle's own reading of it is never used."""
        return self.onecmd(line)

    def do_cls(self, arg: str = "") -> None:
        """Clear the screen with escape codes: picle would start a program for it."""
        self.onecmd(f"cls {arg}")

    @property
    def do_shell(self) -> None:  # type: ignore[override]
        """Nothing: picle's command that runs programs isn't there."""
        raise AttributeError("do_shell")

    def process_help_command(self, line: str) -> None:
        """Print what can stand at the end of a line, which ends in `?` or `??`."""
        text = line.rstrip(HELP)
        mark = line[len(text) :]
        words, tail = split_typed(text)
        try:
            answer = self.session.help(words, tail.word.text, is_verbose=mark == VERBOSE_HELP)
        except UsageError as error:
            self.session.console.error(str(error))
        else:
            self.session.console.result(answer)

    def _read_interactive_input(self, prompt: str, inline_help: bool = True) -> str:
        """Read a line, as picle does, with the completions listed below it."""
        if self._prompt_session is None:
            self._prompt_session = PromptSession(
                history=self._history,
                completer=self._prompt_completer,
                complete_while_typing=False,
                complete_style=CompleteStyle.READLINE_LIKE,
                key_bindings=self._prompt_key_bindings,
                output=_terminal(),
            )
        return str(super()._read_interactive_input(prompt, inline_help))

    def _create_prompt_key_bindings(self) -> KeyBindings:
        """Make `?` show help, except where it is part of a value that is being typed."""
        bindings = KeyBindings()

        @bindings.add(HELP, filter=Condition(lambda: self._inline_help_enabled))
        def show_help(event: KeyPressEvent) -> None:
            document = event.current_buffer.document
            if self._is_in_value(document.text_before_cursor):
                event.current_buffer.insert_text(HELP)
            else:
                self._show_help(document)

        return bindings

    def _show_help(self, document: Document) -> None:
        """Show help above the prompt, the line kept; the second time at the same place, all details."""
        context = (document.text_before_cursor, document.cursor_position)
        is_second = self._last_inline_help == context
        self._last_inline_help = None if is_second else context
        mark = VERBOSE_HELP if is_second else HELP
        run_in_terminal(partial(self.process_help_command, document.text_before_cursor + mark), render_cli_done=True)

    def _is_in_value(self, text: str) -> bool:
        words, tail = split_typed(text)
        if tail.open_quote:
            return True
        parser = self.session.parser()
        try:
            parser.feed_all(words)
        except UsageError:
            return False
        return parser.expected_value is not None and bool(tail.word.text)


def _terminal() -> Output:
    """Return where prompts go: stdout or stderr, whichever is a terminal, as results may be redirected."""
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        # Terminals that don't report the cursor's position get a warning and a second's pause at each prompt otherwise.
        output.enable_cpr = False
    return output


class HiddenPrompt:
    """Asks for secrets without showing them; they go into no history."""

    def read(self, name: str) -> str:
        """Return what was typed.

        Raises:
            UsageError: Ctrl-D instead of a secret.
        """
        asking: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=_terminal())
        try:
            return asking.prompt(f"{name}: ", is_password=True)
        except EOFError:
            raise UsageError(f"{name}: nothing was typed") from None

    def skip(self) -> None:
        """Ask for nothing: the user sees the error before typing on."""


class PromptHistory(History):
    """The history behind the arrow keys: what the file holds, so that secrets aren't brought back either."""

    def __init__(self, lines: HistoryFile, session: Session) -> None:
        super().__init__()
        self._lines = lines
        self._session = session

    def load_history_strings(self) -> Iterable[str]:
        """Yield the lines, the latest first."""
        yield from reversed(self._lines.lines)

    def append_string(self, string: str) -> None:
        """Add what was typed, a line or several, with secrets masked."""
        for line in string.splitlines():
            text = redacted(line, self._session.location, SHELL_WORDS)
            if text:
                self._loaded_strings.insert(0, text)
                self.store_string(text)

    def store_string(self, string: str) -> None:
        """Append a line to the file."""
        self._lines.append(string)

    def save(self) -> None:
        """Do nothing, where picle writes its file: each line was kept as it came."""


class TabCompleter(Completer):
    """Offers completions of the line up to the cursor."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        """Yield replacements for the line's last word."""
        line = document.text_before_cursor
        found = complete(self._session, line)
        for text in found.texts:
            yield Completion(text, start_position=found.start - len(line), display=text.strip())
