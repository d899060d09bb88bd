"""One user's session: takes lines, runs the commands in them, remembers the subshell.

The prompt, scripts and one-shot commands all drive this class; only the prompt needs picle's `App` around it.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from ...models.commands.base import Render, Results
from ...models.commands.root import Root
from ...models.environment.private_files import open_private
from ...models.errors import EXIT_FAILED, EXIT_OK, NfcliError, UsageError
from ...models.protocol.jobs import failure_reason
from ..output.console import Console
from ..output.progress_line import ProgressLine
from ..output.render import to_text
from ..syntax.lexer import PIPE, VERBOSE_HELP, Word, arguments, is_comment, split
from ..syntax.parser import Parser, Scope, secret_words, split_help
from ..text import escape_line, quote_for_message
from .completion_values import ValueSuggester
from .help import help_text
from .local_commands import LocalCommands, ShellClient

ASK = "-"
CLEAR_SCREEN = "\x1b[H\x1b[2J\x1b[3J"
SHELL_WORDS = {
    "help": "List what can stand here, or behind the words that follow",
    "exit": "Leave this subshell, at the top the shell",
    "top": "Go to the top",
    "end": "Leave the shell",
    "pwd": "Show where in the command tree you are",
    "history": "Show earlier lines, secrets left out",
    "cls": "Clear the screen",
}


class SecretSource(Protocol):
    """Where the secret comes from that was asked for with `-`."""

    def read(self, name: str) -> str:
        """Return the secret for a field.

        Raises:
            UsageError: there is none to be had.
        """

    def skip(self) -> None:
        """Drop what would have been read: the command that asked for it can't be run."""


class Session:
    """Runs commands for one user. Not to be used from two threads at once.

    Args:
        client: runs the jobs.
        console: where output goes; stdout and stderr by default.
        secrets: where `token -` reads from; None: such words are refused.
        history: returns the lines for `history`; None: there are none.
        log_file: where details of internal errors are kept; None: nowhere.

    `location` is the group that is open, outermost first; `has_ended` says that the user has left.
    """

    def __init__(
        self,
        client: ShellClient,
        *,
        console: Console | None = None,
        progress: ProgressLine | None = None,
        secrets: SecretSource | None = None,
        history: Callable[[], Sequence[str]] | None = None,
        log_file: Path | None = None,
    ) -> None:
        self.client = client
        self.root = Root
        self.progress = progress or ProgressLine(console or Console(sys.stdout, sys.stderr))
        self.console = self.progress.console
        self.secrets = secrets
        self.history = history
        self.suggester = ValueSuggester(client, self.root)
        self.location: tuple[Scope, ...] = (Scope("root", self.root),)
        self.has_ended = False
        self.handlers = LocalCommands(client, self.root, self.report).handlers()
        self._log_file = log_file
        self._has_failed = False
        self._words: Mapping[str, Callable[[], None]] = {
            "exit": self._exit,
            "top": self._top,
            "end": self._end,
            "pwd": self._pwd,
            "history": self._show_history,
            "cls": self._cls,
        }

    @property
    def prompt(self) -> str:
        """What the prompt says in the group that is open."""
        return str(self.location[-1].model.PicleConfig.prompt)  # type: ignore[attr-defined]

    def run_line(self, line: str) -> int:
        """Run one line and print what comes of it; return its exit status (`models/errors.py`), 0 for a comment.

        Errors are printed, not raised.

        Raises:
            KeyboardInterrupt: the user has interrupted it; the next line can be run.
            BrokenPipeError: nobody reads stdout any more.
        """
        return EXIT_OK if is_comment(line) else self._guarded(lambda: self._run_line(line))

    def run_words(self, words: Sequence[str]) -> int:
        """Run one command whose words are given one by one, as a command line gives them; otherwise as `run_line`.

        There is no next line, so a group without a command is an error.
        """
        return self._guarded(lambda: self._run(arguments(words)))

    def report(self, results: Results) -> dict[str, Any]:
        """Print which workers failed, and the notes of the others; return the others' values, sorted by worker."""
        values = {}
        for worker in sorted(results):
            result = results[worker]
            if result.get("failed"):
                self._has_failed = True
                self.console.error(f"{worker}: {failure_reason(result)}")
                continue
            values[worker] = result.get("result")
            for message in result.get("messages") or ():
                self.console.note(f"{worker}: {message}")
        return values

    def note(self, text: str) -> None:
        """Tell the user something that is no result."""
        self.console.note(text)

    def render(self, data: Any, columns: Sequence[str]) -> str:
        """Turn data into text, where no pipe does it."""
        return to_text(data, columns)

    def parser(self) -> Parser:
        """Return a parser of words that begins where the user is."""
        return Parser(self.location)

    def help(self, words: list[Word], prefix: str = "", *, is_verbose: bool = False) -> str:
        """Return what may follow the words, or which words that begin with `prefix` may.

        Raises:
            UsageError: one of the words is wrong.
        """
        parser = self.parser()
        parser.feed_all(words)
        values = self.suggester.suggest(parser.expected_value) if parser.expected_value else ()
        shell_words = None if words else SHELL_WORDS
        return help_text(parser, prefix=prefix, is_verbose=is_verbose, shell_words=shell_words, values=values)

    def _guarded(self, run: Callable[[], int]) -> int:
        try:
            return run()
        except NfcliError as error:
            self.console.error(str(error))
            return error.exit_status
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the user's session
            self.console.error(f"internal error: {self._describe_fault(error)}")
            return EXIT_FAILED

    def _run_line(self, line: str) -> int:
        with self._secret_dropped(line):
            words = split(line)
        return self._run(words, line)

    def _run(self, words: list[Word], line: str = "") -> int:
        if not words:
            return EXIT_OK
        question = split_help(self.location, words)
        first = words[0].text
        if first in SHELL_WORDS and not words[0].is_quoted:
            self._run_shell_word(first, words[1:])
        elif question is not None:
            before, prefix, mark = question
            self.console.result(self.help(before, prefix, is_verbose=mark == VERBOSE_HELP))
        else:
            with self._secret_dropped(line):
                parser = self.parser()
                parser.feed_all(words)
                parser.finish()
            if parser.command is not None:
                return self._run_command(parser, parser.command, words)
            self._enter(parser, is_line=bool(line))
        return EXIT_OK

    def _run_command(self, parser: Parser, command: Scope, words: list[Word]) -> int:
        self._fill_secrets(parser, command, words)
        render: Render | None = None
        if parser.stages():
            from ..output.pipeline import Pipeline  # noqa: PLC0415  loads picle: 0.2 s, only when a pipe is used

            render = Pipeline(parser.stages()).run
        self._has_failed = False
        self.suggester.invalidate()
        model = command.model
        try:
            with self.progress.displayed():
                text = model.run(picle_app=self, render=render, **command.values)  # type: ignore[attr-defined]
        except UsageError as error:
            raise UsageError(f"{command.name}: {error}") from None
        if text:
            self.console.result(text)
        return EXIT_FAILED if self._has_failed else EXIT_OK

    def _fill_secrets(self, parser: Parser, command: Scope, words: list[Word]) -> None:
        """Read the secrets that the user has put a `-` in the place of."""
        for position, key in parser.secrets.items():
            if words[position].text != ASK or words[position].is_quoted:
                continue
            if self.secrets is None:
                raise UsageError(f"{command.name}: {key}: - asks for the value, but there is nobody to ask")
            command.values[key] = self.secrets.read(key)

    @contextmanager
    def _secret_dropped(self, line: str) -> Iterator[None]:
        """Drop the secret that a wrong line asked for: a script would run it as its next command, and show it."""
        try:
            yield
        except UsageError:
            rough = line.replace(PIPE, f" {PIPE} ").split()
            asked = any(name in secret_words(self.root) and value == ASK for name, value in pairwise(rough))
            if asked and self.secrets is not None:
                self.secrets.skip()
            raise

    def _enter(self, parser: Parser, *, is_line: bool) -> None:
        if not is_line:
            choices = ", ".join(parser.scope.choices())
            raise UsageError(f"incomplete command, possible completions: {choices}")
        self.location = tuple(parser.groups)

    def _run_shell_word(self, word: str, rest: list[Word]) -> None:
        if word == "help":
            self._help(rest)
        elif [other for other in rest if other.is_help]:
            self.console.result(f" {word}    {SHELL_WORDS[word]}")
        elif rest:
            raise UsageError(f"{word}: takes no words, got {quote_for_message(rest[0].text)}")
        else:
            self._words[word]()

    def _help(self, words: list[Word]) -> None:
        """Show help behind words, the last of which may be the beginning of one."""
        question = split_help(self.location, words)
        before, prefix, mark = question or (words, "", "")
        try:
            text = self.help(before, prefix, is_verbose=mark == VERBOSE_HELP)
        except UsageError:
            if question is not None or not words:
                raise
            *before, last = words
            text = self.help(before, last.text)
        self.console.result(text)

    def _exit(self) -> None:
        if len(self.location) == 1:
            self.has_ended = True
        else:
            self.location = self.location[:-1]

    def _top(self) -> None:
        self.location = self.location[:1]

    def _end(self) -> None:
        self.has_ended = True

    def _pwd(self) -> None:
        self.console.result(".".join(group.name for group in self.location))

    def _show_history(self) -> None:
        lines = self.history() if self.history is not None else ()
        if lines:
            self.console.result("\n".join(f" {escape_line(line)}" for line in lines))

    def _cls(self) -> None:
        self.console.raw(CLEAR_SCREEN)

    def _describe_fault(self, error: Exception) -> str:
        """Return an unexpected error's kind and place, and keep the way to it in the log; its text may hold secrets."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        summary = f"{type(error).__name__} at {place}"
        if self._log_file is None:
            return summary
        stack = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        record = {"time": datetime.now(UTC).isoformat(), "level": "ERROR", "event": summary, "stack": stack}
        try:
            with open_private(self._log_file, "a") as stream:
                stream.write(f"{json.dumps(record)}\n")
        except (OSError, NfcliError) as failure:
            return f"{summary}; no details: {failure}"
        return f"{summary}; details in {self._log_file}"
