"""The options of the `nfcli` program that go with nothing else: which those are, and what is said where they don't."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nfcli.shell.cli import main

MODES = {
    "--backup": ["--backup", "f"],
    "--restore": ["--restore", "f"],
    "--import-norfab": ["--import-norfab", "d"],
    "--check": ["--check"],
    "--authorize": ["--authorize", "f"],
    "--install-service": ["--install-service"],
    "--renew-tls": ["--renew-tls"],
}
OTHERS = {"-w": ["-w"], "--create-env": ["--create-env", "d"], "a command": ["show", "norfab", "workers"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.combinations(MODES, 2), *itertools.product(MODES, OTHERS)], ids=str
)
def test_backup_restore_import_and_check_go_alone(
    one: str, other: str, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, and nothing was done, here or in the default environment."""
    assert main([*MODES[one], *({**MODES, **OTHERS}[other])]) == 2
    said = capsys.readouterr()
    others = ", ".join(name for name in [*MODES, "-w", "--create-env"] if name != one)
    assert (said.out, said.err) == ("", f"nfcli: {one} must be used alone: without a command and without {others}\n")
    assert [*folder.iterdir(), *home.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["-b"], "start NorFab's own with its nfcli -b"),
        (["--broker", "-w"], "start NorFab's own with its nfcli -b"),
        (["-s"], "broker.shared_key in the inventory takes it"),
        (["-wl", "w1,w2"], "name the workers in topology.workers"),
        (["--workers-list"], "name the workers in topology.workers"),
        (["--tui"], "run nfcli without it"),
        (["--web-ui"], "run nfcli without it"),
    ],
)
def test_options_of_norfab_say_what_to_use(
    arguments: list[str], instead: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing was done."""
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nfcli: {arguments[0]}: ")
    assert instead in line
    assert [*folder.iterdir()] == []


def test_the_command_for_a_new_environment_can_be_pasted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its path is quoted where a shell would divide it."""
    assert main(["--create-env", "my env"]) == 0
    environment = folder / "my env"
    assert capsys.readouterr().err == (
        f"nfcli: environment written to {environment}: start it with nfcli -i '{environment}/inventory.yaml'\n"
    )


@pytest.mark.parametrize("option", ["--user", "--dry-run"])
def test_options_of_a_service_need_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They would mean nothing."""
    assert main([option, "show", "norfab", "workers"]) == 2
    assert capsys.readouterr().err == f"nfcli: {option} needs --install-service\n"


def test_a_service_that_cannot_be_installed_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root, who would have to name an inventory, and on another system."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["--install-service", "--dry-run"]) == 1
    assert capsys.readouterr().err == "nfcli: name the inventory of the service: nfcli -i FILE --install-service\n"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(["-i", str(folder), "--install-service"]) == 1
    assert capsys.readouterr().err.startswith("nfcli: --install-service makes units of systemd, for Linux: ")


@pytest.mark.parametrize("words", [["--check"], ["-w"], ["show", "norfab", "workers"], []])
def test_worker_goes_with_backup_restore_and_import_only(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands have a field for it; a foreground runs them all."""
    assert main(["--worker", "w1", *words]) == 2
    told = (
        "nfcli: --worker needs --backup, --restore or --import-norfab: for a command, type its field workers instead\n"
    )
    assert capsys.readouterr().err == told
    assert list(home.iterdir()) == []


def test_a_reader_that_leaves_early_ends_a_check_without_an_error(folder: Path) -> None:
    """As `nfcli --check | head -1` does; no traceback, no complaint at the exit."""
    (folder / "inventory.yaml").write_text("workers: {w1: [{service: fastmcp, port: 0}]}\n")
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-c", "from nfcli.shell.cli import main; raise SystemExit(main())", "--check"]
    try:
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(params=["an inventory with an error", "a folder open to others"])
def broken(request: pytest.FixtureRequest, folder: Path) -> str:
    """Break the environment; return a part of the error."""
    text = "workers: [" if "inventory" in request.param else "workers: {w1: [{service: fastmcp, port: 0}]}"
    (folder / "inventory.yaml").write_text(text)
    (folder / ".nfcli").mkdir()
    (folder / ".nfcli").chmod(0o755 if "folder" in request.param else 0o700)
    return "inventory.yaml:" if "inventory" in request.param else ".nfcli"


@pytest.mark.parametrize("words", [[], ["--backup", "b.db"], ["--check"], ["fastmcp", "auth", "list-tokens"]])
def test_only_a_restore_accepts_what_is_unverified(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option would have no meaning elsewhere."""
    assert main(["--unverified", *words]) == 2
    told = "nfcli: --unverified needs --restore: name the backup that is to be accepted without a valid seal\n"
    assert capsys.readouterr().err == told
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["man", "page", "inventory"], "# The inventory\n"),
        (["man", "page"], " inventory "),
        (["man", "tree", "fastmcp.auth"], "create-token"),
        (["man", "json-schema", "show"], '"properties"'),
        (["help"], " fastmcp        FastMCP service\n"),
        (["help", "fastmcp", "auth", "list-tokens", "workers"], " <workers>    Filter worker to target\n"),
    ],
)
@pytest.mark.usefixtures("broken")
def test_the_manual_and_help_need_no_environment(
    words: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They explain how to repair it."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert printed in out
    assert err == ""


def test_a_command_that_needs_a_broken_environment_fails(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, which names what is wrong."""
    assert main(["show", "norfab", "client"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("nfcli: ")) == ("", 1, True)
    assert broken in err


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("script", [b"", b"# nothing yet\n\n! nor here\n"])
def test_a_script_without_commands_needs_no_environment(
    script: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The inventory is read by the first command that needs it, as the manual says."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script)))
    assert main([]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_script_prints_the_manual_where_the_environment_is_broken(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines before and after the failed one run."""
    script = io.TextIOWrapper(io.BytesIO(b"man page inventory\nshow norfab client\nman tree\n"))
    monkeypatch.setattr(sys, "stdin", script)
    assert main([]) == 1
    out, err = capsys.readouterr()
    assert ("# The inventory" in out, out.startswith("root"), "create-token" in out) == (True, False, True)
    assert (err.count("\n"), err.startswith("line 2: "), broken in err) == (1, True, True)


def test_ctrl_c_while_modules_load_is_one_line() -> None:
    """The program has imported nothing of its own then."""
    code = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'nfcli.shell.cli':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from nfcli.shell.entry_point import main\n"
        "raise SystemExit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "interrupted\n")
