"""The shell's own words, `exit`, `top`, `history` and the like, and the place in the command tree that they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...models.commands.base import CommandGroup
from ...models.commands.root import Root
from ...models.errors import UsageError
from ..output.console import Console
from ..syntax.lexer import Word
from ..syntax.parser import Scope
from ..text import escape_line, quote_for_message

CLEAR_SCREEN = "\x1b[H\x1b[2J\x1b[3J"
HELP_WORD = "help"
SHELL_WORDS = {
    HELP_WORD: "List what can be typed here, or after the words that follow",
    "exit": "Leave this subshell, or at the top the shell",
    "top": "Go to the top level",
    "end": "Leave the shell",
    "pwd": "Show the current place in the command tree",
    "history": "Show previous lines, secrets masked",
    "cls": "Clear the screen",
}


def find_shell_word(word: Word, location: Sequence[Scope], *, is_strict: bool = False) -> str | None:
    """Return which of the shell's own words the first word of a line is or, unless `is_strict`, abbreviates.

    None if it is neither, or may as well be a name in the open group. `location` is that group, as in `Parser`.
    """
    if word.is_quoted or word.text in SHELL_WORDS:
        return None if word.is_quoted else word.text
    found = [name for name in SHELL_WORDS if name.startswith(word.text)] if word.text and not is_strict else []
    is_ambiguous = len(found) == 1 and any(name.startswith(word.text) for name in location[-1].choices())
    return found[0] if len(found) == 1 and not is_ambiguous else None


def shell_word_help(name: str) -> str:
    """Return the help line of one of `SHELL_WORDS`."""
    return f" {name}    {SHELL_WORDS[name]}"


class Navigator:
    """The user's place in the command tree, and the shell's own words but `help`. `history` returns the lines typed.

    `location` is the open group after those above it, outermost first; `has_left` is true once the user has left.
    `root` is the root of the command tree.
    """

    def __init__(self, console: Console, history: Callable[[], Sequence[str]], root: type[CommandGroup] = Root) -> None:
        self.location: tuple[Scope, ...] = (Scope("root", root),)
        self.has_left = False
        self._console = console
        self._history = history

    @property
    def prompt(self) -> str:
        """The prompt of the open group."""
        return str(self.location[-1].model.PicleConfig.prompt)  # type: ignore[attr-defined]

    def run(self, word: str, rest: Sequence[Word]) -> None:
        """Run one of `SHELL_WORDS` other than `help`; with a `?` behind it, print its description.

        Raises:
            UsageError: words follow that are no request for help.
        """
        if any(other.is_help for other in rest):
            self._console.result(shell_word_help(word))
        elif rest:
            raise UsageError(f"{word}: takes no arguments, got {quote_for_message(rest[0].text)}")
        elif word == "end" or (word == "exit" and len(self.location) == 1):
            self.has_left = True
        elif word == "exit":
            self._leave_group()
        elif word == "top":
            self.location = self.location[:1]
        elif word == "pwd":
            self._console.result(".".join(group.name for group in self.location))
        elif word == "cls":
            self._console.write_codes(CLEAR_SCREEN)
        elif lines := self._history():
            self._console.result("\n".join(f" {escape_line(line)}" for line in lines))

    def _leave_group(self) -> None:
        is_below_passage = len(self.location) > 1 and getattr(self.location[-2].model, "IS_PASSAGE", False)
        self.location = self.location[: -2 if is_below_passage else -1]
