"""The picle App: what it must not do any more, and what it passes on to the session."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picle import App as PicleApp
from prompt_toolkit.document import Document

from nfcli.models.commands.man import ManCommands
from nfcli.models.commands.root import Root
from nfcli.shell.repl.history import HistoryFile
from nfcli.shell.repl.picle_adapter import INTRO, App
from nfcli.shell.repl.prompt import HiddenPrompt, Prompt, PromptHistory, TabCompleter

MakeApp = Callable[[], App]
FASTMCP_HELP = (
    " auth        Manage auth tokens\n discover    Discover tasks of other services\n <ENTER>     Enter fastmcp\n"
)


@pytest.fixture
def make_app(client: Any, tmp_path: Path) -> MakeApp:
    """Make the shell, without a terminal, with a history file; it keeps the streams of the moment it is made."""
    return lambda: App(client, history_file=tmp_path / "history")


def test_a_line_goes_to_the_session(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """Results on stdout as they are, errors on stderr, and the shell goes on."""
    app = make_app()
    assert app.onecmd("fastmcp auth check-token token '[red]x'") is False
    assert app.onecmd("fastmcp auth check-token token 000123") is False
    assert app.default("nonsense") is False
    told = capsys.readouterr()
    assert told.out == '{\n    "fastmcp-worker-1": false\n}\n'
    assert [line.split(":")[0] for line in told.err.splitlines()] == ["check-token", "'nonsense' is not valid here"]


def test_true_is_a_result_and_doesn_t_end_the_shell(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """Only words that mean leaving leave."""
    app = make_app()
    app.onecmd("fastmcp auth create-token username a token x")
    assert not app.session.has_ended
    assert app.onecmd("end") is True
    assert '"fastmcp-worker-1": true' in capsys.readouterr().out


def test_lines_pasted_at_once_run_one_after_the_other(make_app: MakeApp, client: Any) -> None:
    """Each line is a command, until one leaves the shell."""
    app = make_app()
    assert app.onecmd("fastmcp\nauth\nlist-tokens\nend\nlist-tokens") is True
    assert len(client.calls) == 1


def test_nothing_runs_programs(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`!`, `shell` and `cls` start nothing; picle's way to it is gone."""
    app = make_app()

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a program was started")

    for name in ("os.system", "subprocess.run", "subprocess.Popen", "os.popen"):
        monkeypatch.setattr(name, refuse)
    assert not hasattr(app, "do_shell")
    for line in ("!ls", "! ls", "shell ls", "cls"):
        app.onecmd(line)
    app.do_cls()
    assert capsys.readouterr().err.count("\n") == 1


def test_the_screen_is_cleared_with_escape_codes(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the codes."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    App(client).onecmd("cls")
    assert terminal.getvalue() == "\x1b[H\x1b[2J\x1b[3J"


def test_the_root_s_own_man_stays(make_app: MakeApp) -> None:
    """Picle adds no commands to the tree."""
    app = make_app()
    assert list(Root.model_fields) == ["fastmcp", "show", "man"]
    assert app.root.model_fields["man"].annotation is ManCommands


def test_nothing_lands_in_the_working_folder(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Picle's own history file isn't written."""
    monkeypatch.chdir(tmp_path)
    app = App(client)
    app.onecmd("show norfab client")
    app.postloop()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_the_history_behind_the_arrow_keys_holds_no_secret(make_app: MakeApp, tmp_path: Path) -> None:
    """What comes back with the arrow keys, and lies in the file, is masked; each pasted line is one of its own."""
    session = make_app().session
    session.run_line("fastmcp")
    history = PromptHistory(HistoryFile(tmp_path / "history"), session)
    history.append_string("auth check-token token S3cret\n# comment\nauth list-tokens")
    expected = ["auth check-token token ***", "auth list-tokens"]
    assert history.get_strings() == expected
    assert list(history.load_history_strings()) == expected[::-1]
    assert (tmp_path / "history").read_text().splitlines() == expected


def test_a_history_that_can_not_be_kept_is_told_at_the_start(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The intro and the problem go to stderr; Ctrl-D leaves."""

    def leave(*_: Any) -> str:
        raise EOFError

    monkeypatch.setattr(Prompt, "read", leave)
    path = tmp_path / "history"
    path.write_text("x\n")
    path.chmod(0o666)
    App(client, history_file=path).start()
    App(client, intro="hello").cmdloop()
    App(client, intro="").start()
    told = capsys.readouterr()
    assert told.out == ""
    first, second, third = told.err.splitlines()
    assert (first, third) == (INTRO, "hello")
    assert second.startswith("history is not saved: ")
    assert "chmod 600" in second


def test_ctrl_c_drops_the_line_or_the_command_and_not_the_shell(
    make_app: MakeApp, client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the prompt it drops what is typed, in a command it cancels the wait."""
    app = make_app()
    events: list[Any] = [KeyboardInterrupt, "show fastmcp version", "pwd", EOFError]

    def read(*_: Any) -> str:
        event = events.pop(0)
        if isinstance(event, str):
            return event
        raise event

    monkeypatch.setattr(Prompt, "read", read)
    client.raising = KeyboardInterrupt()
    app.start()
    told = capsys.readouterr()
    assert (told.out, told.err) == ("root\n", f"{INTRO}\ncancelled\n")


def test_nobody_reading_stdout_ends_the_shell(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing left to do for a prompt whose results nobody can see."""
    app = make_app()
    monkeypatch.setattr(Prompt, "read", lambda *_: "pwd")
    monkeypatch.setattr(app.session.console.out, "write", lambda _: (_ for _ in ()).throw(BrokenPipeError()))
    app.start()
    assert capsys.readouterr().err == f"{INTRO}\n"


def test_a_result_that_can_not_be_written_is_one_line(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk behind stdout is said on stderr."""
    app = make_app()
    told: list[str] = []
    monkeypatch.setattr(app.session.console, "error", told.append)
    monkeypatch.setattr(
        app.session.console.out, "write", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    assert app.session.run_line("pwd") == 1
    assert told == ["cannot write the result: No space left on device"]


@pytest.mark.parametrize(
    ("line", "out", "err"),
    [
        ("fast?", " fastmcp    FastMCP service\n", ""),
        ("fastmcp ?", FASTMCP_HELP, ""),
        ("nonsense ??", "", "'nonsense' is not valid here: expected fastmcp, show, man\n"),
    ],
)
def test_the_help_key_prints_what_can_stand_there(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], line: str, out: str, err: str
) -> None:
    """Help without Enter is the help of the session."""
    app = make_app()
    app.process_help_command(line)
    told = capsys.readouterr()
    assert (told.out, told.err) == (out, err)


@pytest.mark.parametrize(
    ("text", "is_value"),
    [
        ("", False),
        ("fast", False),
        ("fastmcp auth list-tokens username ", False),
        ("fastmcp auth list-tokens username wh", True),
        ("fastmcp auth list-tokens username 'a ", True),
        ("nonsense x", False),
    ],
)
def test_a_question_mark_is_typed_into_values_only(make_app: MakeApp, text: str, is_value: bool) -> None:
    """Inside a value it is a character, elsewhere it asks for help."""
    prompt = Prompt(make_app().session, HistoryFile(None))
    assert prompt.is_in_value(text) is is_value


def test_completions_replace_the_last_word(make_app: MakeApp) -> None:
    """prompt_toolkit gets the text to put in and from where."""
    app = make_app()
    completer = TabCompleter(app.session)
    document = Document("fastmcp auth list-tokens u")
    found = [(each.text, each.start_position) for each in completer.get_completions(document, None)]
    assert found == [("username ", -1)]


def test_picle_still_has_every_name_that_the_app_overrides() -> None:
    """A name that vanished from picle would leave an override that nothing calls."""
    ours = {name for name in vars(App) if not name.startswith("__")}
    assert "_read_interactive_input" in ours
    assert ours - set(dir(PicleApp)) == set()


def test_nothing_is_read_to_drop_a_secret_at_a_prompt() -> None:
    """The user sees the error before typing on."""
    HiddenPrompt().discard()
