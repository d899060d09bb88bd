"""Line editing at a terminal, with prompt_toolkit: history, completion, the `?` key, and hidden input of secrets."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Sequence
from functools import partial

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from ...models.errors import NfcliError, UsageError
from ..syntax.lexer import HELP, VERBOSE_HELP, is_comment, split_typed
from ..syntax.parser import HelpRequest, Parser, Scope
from .completion import complete
from .history import HistoryFile, mask_line
from .jobs.countdown import terminal_output
from .secret_input import YES_OR_NO, is_yes
from .services.texts import MAX_TEXT_BYTES
from .session import Session


class Prompt:
    """Reads lines for a session.

    `?` prints help above the line that is being typed, and a second `?` at the same place the details as well; within a
    value it is a character.
    """

    def __init__(self, session: Session, history: HistoryFile, tokens: Container[str] = ()) -> None:
        self._session = session
        self._history = PromptHistory(history, session, tokens)
        self._editor: PromptSession[str] | None = None
        self._latest_help: tuple[str, int] | None = None

    def read(self) -> str:
        """Return the next line, or several that were pasted at once.

        Raises:
            EOFError: the user pressed Ctrl-D.
            KeyboardInterrupt: the user pressed Ctrl-C; the line is dropped.
        """
        if self._editor is None:
            self._editor = PromptSession(
                history=self._history,
                completer=TabCompleter(self._session),
                complete_while_typing=False,
                complete_style=CompleteStyle.READLINE_LIKE,
                key_bindings=self._key_bindings(),
                output=terminal_output(),
            )
        self._latest_help = None
        self.save_history()
        self._session.suggester.invalidate()
        return self._editor.prompt(self._session.navigator.prompt)

    def save_history(self) -> None:
        """Save the lines that were read, once they have been run."""
        self._history.save()

    def print_help(self, line: str) -> None:
        """Print what may stand at the end of a line, which ends in `?` or `??`."""
        text = line.rstrip(HELP)
        words, tail = split_typed(text)
        try:
            answer = self._session.help(HelpRequest(words, tail.word.text, line[len(text) :] == VERBOSE_HELP))
        except NfcliError as error:
            self._session.console.error(str(error))
        else:
            self._session.console.help(answer)

    def is_in_value(self, text: str) -> bool:
        """Whether what is typed next belongs to a value that has begun."""
        words, tail = split_typed(text)
        if tail.open_quote:
            return True
        parser = Parser(self._session.navigator.location)
        try:
            with self._session.catalogue.only_known():
                parser.feed_all(words)
        except UsageError:
            return False
        return parser.expected_value is not None and bool(tail.word.text)

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add(HELP)
        def show_help(event: KeyPressEvent) -> None:
            document = event.current_buffer.document
            if self.is_in_value(document.text_before_cursor):
                event.current_buffer.insert_text(HELP)
            else:
                self._show_help(document)

        return bindings

    def _show_help(self, document: Document) -> None:
        place = (document.text_before_cursor, document.cursor_position)
        is_second = self._latest_help == place
        self._latest_help = None if is_second else place
        mark = VERBOSE_HELP if is_second else HELP
        run_in_terminal(partial(self.print_help, document.text_before_cursor + mark), render_cli_done=True)


class HiddenPrompt:
    """Asks for secrets without showing them or keeping them in a history."""

    def read(self, name: str) -> str:
        """Return what was typed; UsageError if the user pressed Ctrl-D instead."""
        editor: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=terminal_output())
        try:
            return editor.prompt(f"{name}: ", is_password=True)
        except EOFError:
            raise UsageError(f"{name}: no value was entered") from None

    def discard(self) -> None:
        """Do nothing: the user sees the error before typing the secret."""

    def read_text(self, name: str) -> str:
        """Return the lines typed until Ctrl-D; UsageError if there are none."""
        editor: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=terminal_output())
        lines: list[str] = []
        with contextlib.suppress(EOFError):
            while sum(len(line) for line in lines) <= MAX_TEXT_BYTES:
                lines.append(editor.prompt("" if lines else f"{name}, end with Ctrl-D on an empty line:\n"))
        if not lines:
            raise UsageError("no text was entered")
        return "".join(f"{line}\n" for line in lines)

    def confirm(self, question: str) -> bool | None:
        """Ask; return whether the answer is yes, which it isn't after Ctrl-D."""
        editor: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=terminal_output())
        try:
            return is_yes(editor.prompt(f"{question} {YES_OR_NO}"))
        except EOFError:
            return False


class PromptHistory(History):
    """The history behind the arrow keys: the lines of this session as they were typed, those of earlier ones as kept.

    The history file, and the word `history`, have them with secrets masked, after `save`. `tokens` has the stored
    tokens; asking it may take a while.
    """

    def __init__(self, lines: HistoryFile, session: Session, tokens: Container[str] = ()) -> None:
        super().__init__()
        self._lines = lines
        self._session = session
        self._tokens = tokens
        self._unsaved: list[tuple[str, Sequence[Scope]]] = []

    def load_history_strings(self) -> Iterable[str]:
        """Yield the lines, the latest first."""
        yield from reversed(self._lines.lines)

    def append_string(self, string: str) -> None:
        """Add what was typed, one line or several; comments are not kept."""
        for line in string.splitlines():
            if line.strip() and not is_comment(line):
                self._loaded_strings.insert(0, line.strip())
                self._unsaved.append((line, self._session.navigator.location))

    def save(self) -> None:
        """Keep the lines added since the last time, with secrets masked."""
        lines, self._unsaved = self._unsaved, []
        for line, location in lines:
            with self._session.catalogue.only_known():
                text = mask_line(line, location, self._tokens)
            if text:
                self.store_string(text)

    def store_string(self, string: str) -> None:
        """Append a line to the file."""
        self._lines.append(string)


class TabCompleter(Completer):
    """Completes the line up to the cursor."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        """Yield replacements for the line's last word."""
        line = document.text_before_cursor
        with self._session.catalogue.only_known():
            found = complete(line, self._session.navigator.location, self._session.suggester)
        for text in found.texts:
            yield Completion(text, start_position=found.start - len(line), display=text.strip())
