"""Questions of running tasks at the prompt, in scripts, and between commands."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest

from nfcli.shell.client.jobs.questions import Question
from nfcli.shell.output.console import Console
from nfcli.shell.repl.jobs.questions import MAX_PREVIEW_LINES, QuestionDesk
from support.shell.bench import ShellBench
from support.shell.fake_client import FakeClient


def question(text: str = "Go on?", **changed: Any) -> Question:
    """Return a question of a worker `w1`."""
    return Question("w1", "demo", "walk", "u1", text, **changed)


class Desk:
    """A desk with a user who types `typed`, of a list one at a time; `asked` are texts and times of the questions."""

    def __init__(self, typed: str | list[str] | None = None, *, can_ask: bool = True) -> None:
        self.asked: list[tuple[str, float]] = []
        self.err = io.StringIO()
        self._typed = typed
        self.desk = QuestionDesk(Console(io.StringIO(), self.err), self._ask if can_ask else None)

    def _ask(self, text: str, seconds: float) -> str | None:
        self.asked.append((text, seconds))
        return self._typed.pop(0) if isinstance(self._typed, list) else self._typed

    def answer(self, asks: Question, given: str | None = None) -> Any:
        """Answer during a command."""
        with self.desk.running(given):
            return self.desk(asks)


@pytest.mark.parametrize(
    ("typed", "expected"), [("y", True), ("YES", True), ("n", False), ("", False), ("yess", False), (None, False)]
)
def test_only_yes_is_yes(typed: str | None, expected: bool) -> None:
    """Nothing typed in time is No, whatever the default."""
    desk = Desk(typed)
    assert desk.answer(question("Apply\x1b?", default=True, seconds=5.0)) is expected
    assert desk.asked == [("w1 asks: Apply\\x1b? [y/N]", 5.0)]
    assert desk.err.getvalue() == ("no answer: No\n" if typed is None else "")


@pytest.mark.parametrize(
    ("typed", "default", "expected"),
    [("10", 5, "10"), ("", 5, 5), ("a", None, "a"), ("", None, None), (None, "x", None)],
)
def test_other_answers_are_as_they_were_typed(typed: str | None, default: Any, expected: Any) -> None:
    """The default stands for an empty line, and nothing for no answer."""
    desk = Desk(typed)
    assert desk.answer(question(default=default, choices=("a", "b") if default is None else ())) == expected
    hint = "a/b" if default is None else default
    assert desk.asked == [(f"w1 asks: Go on? [{hint}]", math.inf)]


@pytest.mark.parametrize(("default", "kind"), [(5, "an integer"), (5.5, "a number")])
def test_an_answer_of_another_kind_is_asked_for_again(default: Any, kind: str) -> None:
    """In the time that is left: the worker goes on waiting for a valid one."""
    desk = Desk(["many", "1e", "7"])
    assert desk.answer(question(default=default, seconds=60.0)) == "7"
    assert desk.err.getvalue() == f"the answer must be {kind}\n" * 2
    times = [seconds for _, seconds in desk.asked]
    assert (len(times), times) == (3, sorted({*times}, reverse=True))


def test_what_the_task_would_do_is_shown_first() -> None:
    """A text as it is, anything else as JSON, both without control characters, and not without end."""
    desk = Desk("y")
    desk.answer(question(preview="- old\n+ new\x1b"))
    desk.answer(question(preview={"vlan": 10}))
    lines = desk.err.getvalue().splitlines()
    assert lines == [
        "w1 would do this:",
        "  - old",
        "  + new\\x1b",
        "w1 would do this:",
        "  {",
        '      "vlan": 10',
        "  }",
    ]
    long = Desk("y")
    long.answer(question(preview="\n".join("x" * (MAX_PREVIEW_LINES + 2))))
    assert long.err.getvalue().splitlines()[-2:] == ["  x", "  and 2 more lines"]


@pytest.mark.parametrize(("given", "expected"), [("yes", True), ("no", False)])
def test_an_answer_of_the_command_is_given_without_asking(given: str, expected: bool) -> None:
    """Also where somebody could be asked; other questions aren't answered by it."""
    desk = Desk("7", can_ask=True)
    assert desk.answer(question(), given) is expected
    assert (desk.asked, desk.err.getvalue()) == ([], f"w1 asks: Go on? answered {given}\n")
    assert desk.answer(question(default=5), given) == "7"


def test_where_nobody_can_be_asked_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the command fails, with what to add to it."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    desk = Desk(can_ask=False)
    assert desk.answer(question()) is None
    remedy = "add answer yes or answer no to the command"
    assert desk.err.getvalue() == f"w1 asks: Go on? refused, because nobody can be asked here: {remedy}\n"
    assert desk.desk.has_refused
    assert desk.answer(question(default="x")) is None
    assert desk.err.getvalue().endswith("nobody can be asked here: run the command at a terminal\n")
    with desk.desk.running(None):
        assert not desk.desk.has_refused


def test_between_commands_nobody_is_asked() -> None:
    """Completion runs jobs too."""
    desk = Desk("y")
    assert (desk.desk(question()), desk.asked) == (None, [])


class AskingClient(FakeClient):
    """A client whose worker asks in each job; `answers_given` are the answers."""

    def __init__(self) -> None:
        super().__init__("w1")
        self.ask: Callable[[Question], Any] = lambda _: None
        self.answers_given: list[Any] = []

    def run_job(self, service: str, task: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Ask, then run a task."""
        self.answers_given.append(self.ask(question()))
        return super().run_job(service, task, **options)


def test_a_command_carries_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`answer yes`; without it, a script's command fails."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    client = AskingClient()
    bench = ShellBench(client)
    client.ask = bench.session.questions
    assert bench.run("fastmcp auth check-token token x answer yes") == (
        *(0, '{\n    "w1": false\n}\n'),
        "w1 asks: Go on? answered yes\n",
    )
    status, out, err = bench.run("fastmcp auth check-token token x")
    assert (status, out, "refused" in err) == (1, '{\n    "w1": false\n}\n', True)
    assert bench.run("fastmcp auth list-tokens")[0] == 1
    assert bench.run("fastmcp auth list-tokens answer no")[0] == 0
    assert client.answers_given == [True, None, None, False]
    assert bench.run("fastmcp auth list-tokens answer maybe")[0] == 2
