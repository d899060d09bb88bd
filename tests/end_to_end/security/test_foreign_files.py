"""Files that other users could change: none of them makes nfcli run code, or sends tokens to a worker of theirs."""

from __future__ import annotations

import json
import os
import py_compile
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli import NorFab
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import InventoryError
from nfcli.shell.cli import main
from support.workers import EnvironmentFactory, NfcliRunner

STRANGER = 12_345
LIST = ["fastmcp", "auth", "list-tokens"]
PLUGIN = """
from nfcli import task
import friend

@task
def greet(worker, arguments):
    return "hello"
"""
Opening = Callable[[Environment], Path]
"""Opens an environment to other users; returns the path that the refusal must name."""


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment whose plugin, and the module that this imports, leave a mark when they run."""
    environment = environment_factory("w1", plugins=["lab"])
    mark = f"open({str(environment.folder / 'ran')!r}, 'w').close()\n"
    (environment.folder / "lab").mkdir()
    (environment.folder / "lab" / "__init__.py").write_text(mark + PLUGIN)
    (environment.folder / "friend.py").write_text(mark.replace("/ran", "/friend-ran"))
    return environment


def inventory(environment: Environment) -> Path:
    """Let others write to the inventory."""
    return _opened(environment.folder / "inventory.yaml")


def folder(environment: Environment) -> Path:
    """Let others write to the folder."""
    return _opened(environment.folder)


def variables(environment: Environment) -> Path:
    """Let others write to `.env`."""
    file = environment.folder / ".env"
    file.write_text("A=b\n")
    return _opened(file)


def merged(environment: Environment) -> Path:
    """Let others write to a file that the inventory names."""
    file = environment.folder / "common.yaml"
    file.write_text("port: 0\n")
    data = json.loads((environment.folder / "inventory.yaml").read_text())
    data["workers"]["w*"] = ["common.yaml"]
    (environment.folder / "inventory.yaml").write_text(json.dumps(data))
    return _opened(file)


def plugin(environment: Environment) -> Path:
    """Let others write to the plugin's file."""
    return _opened(environment.folder / "lab" / "__init__.py")


def package(environment: Environment) -> Path:
    """Let others write to the plugin's folder."""
    return _opened(environment.folder / "lab")


def sibling(environment: Environment) -> Path:
    """Let others write to a module that the plugin imports."""
    return _opened(environment.folder / "friend.py")


def compiled(environment: Environment) -> Path:
    """Let others write to the compiled form of that module."""
    return _opened(Path(py_compile.compile(str(environment.folder / "friend.py"), doraise=True)))


def compiled_folder(environment: Environment) -> Path:
    """Let others write to the folder of compiled modules."""
    return _opened(compiled(environment).parent)


def _opened(path: Path) -> Path:
    path.chmod(0o777 if path.is_dir() else 0o666)
    return path


OF_THE_INVENTORY = [inventory, folder, variables, merged]
OF_PLUGINS = [plugin, package, sibling, compiled, compiled_folder]


@pytest.mark.slow
@pytest.mark.parametrize("opening", [*OF_THE_INVENTORY, *OF_PLUGINS])
def test_files_that_others_can_write_run_nothing(
    environment: Environment, nfcli: NfcliRunner, opening: Opening
) -> None:
    """Neither a command that starts workers, nor workers in the foreground: one line names the file and the remedy."""
    named = opening(environment)
    for words in (LIST, ["-w"]):
        done = nfcli(*words, environment=environment)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert f"{named} has mode 0" in line
        assert f"chmod o-w {named}" in line or f"chmod go-w {named}" in line
    assert not (environment.folder / "friend-ran").exists()
    assert opening in {sibling, compiled, compiled_folder} or not (environment.folder / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("opening", [*OF_THE_INVENTORY, *OF_PLUGINS])
def test_check_reports_them(
    environment: Environment, capsys: pytest.CaptureFixture[str], nfcli: NfcliRunner, opening: Opening
) -> None:
    """As a FAULT, while nothing of them runs."""
    assert nfcli("-c", "show", "norfab", "client", environment=environment).returncode == 0
    named = opening(environment)
    assert main(["-i", str(environment.inventory_file), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("FAULT") and f"{named} has mode 0" in line]
    assert not (environment.folder / "ran").exists()


def given_away(environment: Environment) -> Path:
    """Give the inventory to another user."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(environment.folder / "inventory.yaml", STRANGER, STRANGER)
    return environment.folder / "inventory.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("opening", [inventory, folder, given_away])
def test_check_says_of_a_refused_inventory_only_that(
    environment: Environment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    nfcli: NfcliRunner,
    opening: Opening,
) -> None:
    """That of the working folder, after a worker has run: what else can be checked is found to be good."""
    assert nfcli(*LIST, environment=environment).returncode == 0
    named = opening(environment)
    monkeypatch.chdir(environment.folder)
    assert main(["--check", "offline"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (fault,) = (line for line in lines if line.startswith("FAULT"))
    assert f"{named} has mode 0" in fault or f"{named} belongs to user {STRANGER}" in fault
    assert [line for line in lines if " database: " in line and line.startswith("ok ")]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_runs_nothing_in_another_users_folder(
    environment: Environment, nfcli: NfcliRunner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As with sudo, with the inventory of the working folder or a named one, and by the Python API."""
    folder = environment.folder
    for path in (folder, *folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    reason = f"{folder} belongs to user {STRANGER}, who would control nfcli: run nfcli as that user, or run chown root"
    monkeypatch.chdir(folder)
    assert main(LIST) == 1
    assert capfd.readouterr().err.startswith(f"nfcli: {reason}")
    for words in (LIST, ["-w"]):
        done = nfcli(*words, environment=environment)
        assert (done.returncode, done.stdout, done.stderr[: len(reason) + 7]) == (1, "", f"nfcli: {reason}")
    with pytest.raises(InventoryError, match=reason):
        NorFab(environment.inventory_file)
    done = nfcli("--create-env", str(folder / "new"))
    assert (done.returncode, done.stderr[: len(reason) + 7]) == (1, f"nfcli: {reason}")
    assert not (folder / "ran").exists()
    assert not (folder / ".nfcli").exists()
    assert not (folder / "new").exists()
    done = nfcli("man", "page", "security", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_connection_is_made_to_a_broker_that_others_chose(environment: Environment, nfcli: NfcliRunner) -> None:
    """A stranger's worker there would get the token."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(0.2)
        named = {"endpoint": f"tcp://127.0.0.1:{broker.getsockname()[1]}", "shared_key": "x" * 40}
        file = environment.folder / "inventory.yaml"
        file.write_text(json.dumps({"broker": named, "topology": {"workers": []}}))
        file.chmod(0o666)
        done = nfcli("fastmcp", "auth", "create-token", "username", "ann", environment=environment)
        assert done.returncode == 1
        assert f"chmod go-w {file}" in done.stderr or f"chmod o-w {file}" in done.stderr
        with pytest.raises(TimeoutError):
            broker.accept()
