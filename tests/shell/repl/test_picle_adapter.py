"""The picle App: what it overrides, and that lines go to the session."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picle import App as PicleApp

from nfcli.models.commands.man import ManCommands
from nfcli.models.commands.root import Root
from nfcli.models.errors import JobInterruptedError
from nfcli.shell.repl.picle_adapter import INTRO, App
from nfcli.shell.repl.prompt import Prompt
from support.shell.fake_client import FakeClient

MakeApp = Callable[[], App]


@pytest.fixture
def make_app(client: FakeClient, tmp_path: Path) -> MakeApp:
    """Make the shell, without a terminal, with a history file; it keeps the streams of the moment it is made."""
    return lambda: App(client, history_file=tmp_path / "history")


def test_a_line_goes_to_the_session(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """Results on stdout as they are, errors on stderr, and the shell goes on."""
    app = make_app()
    assert app.onecmd("fastmcp auth check-token token '[red]x'") is False
    assert app.onecmd("fastmcp auth check-token token 000123") is False
    assert app.default("nonsense") is False
    printed = capsys.readouterr()
    assert printed.out == '{\n    "fastmcp-worker-1": false\n}\n'
    assert [line.split(" ")[0] for line in printed.err.splitlines()] == ["check-token:", "'nonsense'"]


def test_true_is_a_result_and_doesn_t_end_the_shell(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """Only words that mean leaving leave."""
    app = make_app()
    app.onecmd("fastmcp auth create-token username a token x")
    assert not app.session.navigator.has_left
    assert app.onecmd("end") is True
    assert '"fastmcp-worker-1": true' in capsys.readouterr().out


def test_lines_pasted_at_once_run_one_after_the_other(make_app: MakeApp, client: FakeClient) -> None:
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


def test_the_screen_is_cleared_with_escape_codes(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the codes."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    App(client).onecmd("cls")
    assert terminal.getvalue() == "\x1b[H\x1b[2J\x1b[3J"


def test_the_root_s_own_man_stays(make_app: MakeApp) -> None:
    """Picle adds no commands to the tree."""
    app = make_app()
    assert app.root is Root
    assert app.root.model_fields["man"].annotation is ManCommands


def test_nothing_lands_in_the_working_folder(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Picle's own history file isn't written."""
    monkeypatch.chdir(tmp_path)
    app = App(client)
    app.onecmd("show norfab client")
    app.postloop()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_history_that_cannot_be_saved_is_reported_at_the_start(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second, third = printed.err.splitlines()
    assert (first, third) == (INTRO, "hello")
    assert second.startswith("history is not saved: ")
    assert "chmod 600" in second


def test_ctrl_c_drops_the_line_or_the_command_and_not_the_shell(
    make_app: MakeApp, client: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("root\n", f"{INTRO}\ncancelled\n")
    client.raising = JobInterruptedError("the outcome is unknown on w1")
    app.onecmd("fastmcp auth delete-token token t")
    assert capsys.readouterr().err == "cancelled: the outcome is unknown on w1\n"


def test_a_closed_stdout_ends_the_shell(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results could no longer be seen."""
    app = make_app()
    monkeypatch.setattr(Prompt, "read", lambda *_: "pwd")
    monkeypatch.setattr(app.session.console.out, "write", lambda _: (_ for _ in ()).throw(BrokenPipeError()))
    app.start()
    assert capsys.readouterr().err == f"{INTRO}\n"


def test_a_result_that_can_not_be_written_is_one_line(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk behind stdout is an error on stderr."""
    app = make_app()
    printed: list[str] = []
    monkeypatch.setattr(app.session.console, "error", printed.append)
    monkeypatch.setattr(
        app.session.console.out, "write", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    assert app.session.run_line("pwd") == 1
    assert printed == ["cannot write the result: No space left on device"]


def test_picle_still_has_every_name_that_the_app_overrides() -> None:
    """A name that vanished from picle would leave an override that nothing calls."""
    ours = {name for name in vars(App) if not name.startswith("__")}
    assert "_read_interactive_input" in ours
    assert ours - set(dir(PicleApp)) == set()
