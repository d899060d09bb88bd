"""A user's session: parses each line, dispatches the command in it, and prints the result.

The prompt, scripts and one-shot commands all drive this class. A line goes one way: `syntax/lexer.py` splits it,
`syntax/parser.py` finds the command, `dispatch.py` runs it, `output/` turns its data into text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...models.commands.base import Entry, JobArguments, ShellCommand
from ...models.commands.root import Root
from ...models.commands.schemas.groups import with_tasks
from ...models.errors import EXIT_FAILED, EXIT_OK, NfcliError, UsageError
from ..output.console import Console, ShownEvents
from ..output.fault_report import report_fault
from ..output.render import to_text
from ..output.streams import RowStream, TableStream
from ..syntax.lexer import Word, arguments, is_comment, split
from ..syntax.parser import HelpRequest, Parser, Scope, Stage, find_help_request, listed
from .completion_values import ValueSuggester
from .dispatch import Dispatcher, ShellClient
from .help import help_text, help_word_text
from .jobs.questions import QuestionDesk
from .secret_input import SecretSource, StandardInput, discard_secret
from .services.catalogue import TaskCatalogue
from .services.shared_files import SharedFiles
from .services.texts import read_text_file
from .shell_words import HELP_WORD, SHELL_WORDS, Navigator, find_shell_word


class Session:
    """Runs commands for one user. Not thread-safe.

    `secrets` is where `token -` reads from, stdin by default; `history` returns the lines for the word of that name;
    `log_file` is where the stacks of internal errors are saved; `is_strict`: no name may be abbreviated.
    """

    def __init__(
        self,
        client: ShellClient,
        *,
        console: Console | None = None,
        questions: QuestionDesk | None = None,
        secrets: SecretSource | None = None,
        history: Callable[[], Sequence[str]] = tuple,
        log_file: Path | None = None,
        is_strict: bool = False,
    ) -> None:
        self._is_strict = is_strict
        self.console = console or Console(sys.stdout, sys.stderr)
        self.secrets: SecretSource = secrets or StandardInput()
        self.catalogue = TaskCatalogue(client, note=self.console.note)
        root = with_tasks(Root, self.catalogue)
        self.suggester = ValueSuggester(client, root, SharedFiles(client, self.catalogue.services))
        self.navigator = Navigator(self.console, history, root)
        self._dispatcher = Dispatcher(client, self.console, root)
        self.questions = questions or QuestionDesk(self.console)
        self.log_file = log_file

    def run_line(self, line: str) -> int:
        """Run one line and print its result; return its exit status (`models/errors.py`), 0 for a comment.

        Errors are printed, not raised.

        Raises:
            KeyboardInterrupt: the user interrupted it; the next line can be run.
            BrokenPipeError: stdout is closed at its other end.
        """
        return EXIT_OK if is_comment(line) else self._catch_errors(lambda: self._run_line(line))

    def run_words(self, words: Sequence[str]) -> int:
        """Run one command whose words are given one by one, as a command line gives them; otherwise as `run_line`.

        No next line follows, so a group without a command is an error.
        """
        return self._catch_errors(lambda: self._run(arguments(words)))

    def help(self, request: HelpRequest) -> str:
        """Return the help for a place in a line.

        Raises:
            UsageError: one of the words before the place is not valid.
        """
        return help_text(self.navigator.location, request, self.suggester)

    def _catch_errors(self, run: Callable[[], int]) -> int:
        try:
            return run()
        except NfcliError as error:
            self.console.error(str(error))
            return error.exit_status
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  an internal error must not end the user's session
            self.console.error(f"internal error: {report_fault(error, self.log_file)}")
            return EXIT_FAILED

    def _run_line(self, line: str) -> int:
        try:
            words = split(line)
        except UsageError:
            discard_secret(line, self.secrets)
            raise
        return self._run(words, line)

    def _run(self, words: list[Word], line: str = "") -> int:
        if not words or self._run_shell_word(words):
            return EXIT_OK
        parser = self._parse(words, line)
        if parser.command is not None:
            return self._dispatch(parser.command, parser.stages)
        if not line:
            raise UsageError(f"incomplete command, possible completions: {listed([*parser.scope.choices()])}")
        self.navigator.location = tuple(parser.groups)
        return EXIT_OK

    def _run_shell_word(self, words: list[Word]) -> bool:
        """Run a word of the shell or print the help asked for; return whether the words are one of the two."""
        shell_word = find_shell_word(words[0], self.navigator.location, is_strict=self._is_strict)
        if shell_word is not None:
            if shell_word == HELP_WORD:
                self.suggester.invalidate()
                self.console.help(help_word_text(self.navigator.location, words[1:], self.suggester))
            else:
                self.navigator.run(shell_word, words[1:])
            return True
        request = find_help_request(self.navigator.location, words)
        if request is not None:
            self.suggester.invalidate()
            self.console.help(self.help(request))
        return request is not None

    def _parse(self, words: list[Word], line: str) -> Parser:
        parser = Parser(self.navigator.location, SHELL_WORDS, is_strict=self._is_strict)
        try:
            parser.feed_all(words)
            parser.finish()
        except NfcliError:
            discard_secret(line, self.secrets)
            raise
        if parser.command is not None:
            values = parser.command.values
            values |= {entry.key: self.secrets.read(entry.name) for entry in parser.asked}
            values |= {entry.key: self._text(entry, file) for entry, file in parser.files}
        return parser

    def _text(self, entry: Entry, file: str) -> str:
        """Return the text of a file, or without one what is typed; a secret without the end of its line."""
        try:
            text = read_text_file(file) if file else self.secrets.read_text(entry.name)
        except UsageError as error:
            raise UsageError(f"{entry.name}: {error}") from None
        return text.rstrip("\r\n") if entry.is_secret else text

    def _confirm(self, command: ShellCommand) -> None:
        """Ask before a command that may destroy something; NfcliError if it mustn't be run."""
        question = command.question() if isinstance(command, JobArguments) else ""
        answer = self.secrets.confirm(question) if question else True
        if answer is None:
            raise UsageError("this task may destroy something: add yes to run it where nobody can be asked")
        if not answer:
            raise NfcliError("not confirmed, nothing was sent")

    def _dispatch(self, parsed: Scope, stages: Sequence[Stage]) -> int:
        render: Callable[[Any, Sequence[str]], str] = to_text
        open_stream: Callable[[Sequence[str]], RowStream | None] = TableStream
        if stages:
            from ..output.pipeline import Pipeline  # noqa: PLC0415  loads picle: 0.2 s, only when a pipe is used

            pipeline = Pipeline(stages)
            render, open_stream = pipeline.run, pipeline.stream
        try:
            command = parsed.model.parse(parsed.values)  # type: ignore[attr-defined]
            self._confirm(command)
            if isinstance(command, JobArguments) and command.is_paged:
                stream = open_stream(command.columns())
                if stream is not None:
                    return self._print_pages(command, stream)
            with self._running(command):
                data = self._dispatcher.run(command)
                text = "" if data is None else render(data, command.result_columns(data))
        except UsageError as error:
            raise UsageError(f"{parsed.name}: {error}") from None
        if text:
            self.console.result(text)
        return EXIT_FAILED if self._dispatcher.has_failed else EXIT_OK

    @contextmanager
    def _running(self, command: ShellCommand) -> Iterator[None]:
        """Show the events of a command's job, and have its questions answered."""
        answer = command.answer if isinstance(command, JobArguments) else None
        with self.console.running(_shown_events(command)), self.questions.running(answer):
            yield
        if self.questions.has_refused:
            self._dispatcher.has_failed = True

    def _print_pages(self, command: JobArguments, stream: RowStream) -> int:
        """Print the rows of each page before the next one is requested."""
        pages = self._dispatcher.pages(command)
        with self._running(command):
            rows = next(pages, None)
        if rows is not None:
            self._print_lines(stream.lines(rows))
            for rows in pages:
                self._print_lines(stream.lines(rows))
            self._print_lines(stream.end())
        return EXIT_FAILED if self._dispatcher.has_failed else EXIT_OK

    def _print_lines(self, lines: Sequence[str]) -> None:
        if lines:
            self.console.result("\n".join(lines))


def _shown_events(command: ShellCommand) -> ShownEvents:
    if not isinstance(command, JobArguments) or not (command.quiet or command.progress):
        return ShownEvents.REPORTED
    return ShownEvents.NONE if command.quiet else ShownEvents.ALL
