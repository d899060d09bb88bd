"""Paths of an environment: the layout, the modes, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.environment.locations import find_environment
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import EnvironmentFolderError

NOBODY = 54_321

Modes = Callable[[Path], dict[str, str]]

worker_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True).filter(
    lambda name: name.casefold() not in {"all", "any", "client", "fleet"} and not name.startswith("audit-")
)


def test_all_paths_are_in_the_state_folder(tmp_path: Path) -> None:
    """The layout of `.nfcli/`."""
    environment = Environment(tmp_path, None)
    state = tmp_path / ".nfcli"
    assert {
        "state": environment.state_folder,
        "keys": environment.keys_folder,
        "clients": environment.clients_folder,
        "run": environment.run_folder,
        "logs": environment.logs_folder,
        "history": environment.history_file,
        "tokens": environment.tokens_folder("w"),
        "lock": environment.lock_file("w"),
        "log": environment.log_file("w"),
        "audit": environment.audit_file("w"),
        "audit key": environment.audit_key_file("w"),
    } == {
        "state": state,
        "keys": state / "keys",
        "clients": state / "clients",
        "run": state / "run",
        "logs": state / "logs",
        "history": state / "history",
        "tokens": state / "tokens" / "w",
        "lock": state / "run" / "w.lock",
        "log": state / "logs" / "w.jsonl",
        "audit": state / "logs" / "audit-w.jsonl",
        "audit key": state / "keys" / "w.audit_key",
    }


@given(one=worker_names, other=worker_names)
def test_no_two_workers_share_a_path(one: str, other: str) -> None:
    """Every path of a worker is in the state folder, and no other worker's name leads to it."""
    environment = Environment(Path("/e"), None)

    def paths(name: str) -> set[Path]:
        own = environment.lock_file(name), environment.log_file(name), environment.audit_file(name)
        return {*own, environment.audit_key_file(name), environment.tokens_folder(name)}

    for path in paths(one):
        assert Path(os.path.normpath(path)) == path
        assert environment.state_folder in path.parents
    assert (one == other) or not paths(one) & paths(other)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must be 1 to 64 characters, got 0"),
        ("w" * 65, "must be 1 to 64 characters, got 65"),
        ("../w", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        (".w", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        ("-w", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        ("a/b", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        ("w\n", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        ("é", "must be made of letters, digits, dashes, dots and underscores and not begin with a dot or a dash"),
        ("all", "is reserved: choose another name"),
        ("Any", "is reserved: choose another name"),
        ("client", "is reserved: choose another name"),
        ("Fleet", "is reserved: choose another name"),
        ("audit-w", "must not begin with audit-"),
    ],
)
def test_name_that_breaks_the_rule_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    """Each part of the rule has its message."""
    with pytest.raises(EnvironmentFolderError) as caught:
        Environment(tmp_path, None).lock_file(name)
    assert str(caught.value) == f"worker name {name!r} {problem}"


@pytest.mark.usefixtures("umask")
def test_prepared_tree_is_private_whatever_the_umask(tmp_path: Path, modes: Modes) -> None:
    """Folders are 0700 and files 0600, the environment's own folder included when it is created."""
    environment = Environment(tmp_path / "a" / "b", None)
    environment.prepare()
    assert modes(tmp_path) == {
        "a": "0700",
        "a/b": "0700",
        "a/b/.nfcli": "0700",
        "a/b/.nfcli/.gitignore": "0600",
        "a/b/.nfcli/clients": "0700",
        "a/b/.nfcli/keys": "0700",
        "a/b/.nfcli/logs": "0700",
        "a/b/.nfcli/run": "0700",
        "a/b/.nfcli/tokens": "0700",
    }


def test_mode_of_the_users_own_folder_is_left_alone(tmp_path: Path) -> None:
    """Only what nfcli writes has to be private; an inventory's folder may be shared."""
    tmp_path.chmod(0o755)
    Environment(tmp_path, None).prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_secrets_stay_out_of_a_repository(environment: Environment) -> None:
    """Git ignores all of the state folder."""
    subprocess.run(["git", "init", "-q", environment.folder], check=True)
    found = subprocess.run(
        ["git", "-C", environment.folder, "status", "--porcelain", "-uall"], check=True, capture_output=True
    )
    assert found.stdout == b""


def test_preparing_again_changes_nothing(environment: Environment, modes: Modes) -> None:
    """A second start finds everything as it has to be."""
    before = modes(environment.folder)
    environment.prepare()
    assert modes(environment.folder) == before


@pytest.mark.parametrize(
    ("relative", "mode", "wanted"),
    [
        (".nfcli", 0o755, "700"),
        (".nfcli/keys", 0o710, "700"),
        (".nfcli/tokens/w", 0o701, "700"),
        (".nfcli/tokens/w/cache.db", 0o644, "600"),
        (".nfcli/tokens/w/cache.db-wal", 0o604, "600"),
        (".nfcli/clients/a.key", 0o640, "600"),
    ],
)
def test_wide_mode_is_an_error_whose_remedy_works(
    environment: Environment, relative: str, mode: int, wanted: str
) -> None:
    """The message has mode and command; the command, run in a shell, fixes the mode."""
    database = environment.tokens_folder("w")
    database.mkdir(mode=0o700)
    for file in (database / "cache.db", database / "cache.db-wal", environment.clients_folder / "a.key"):
        file.touch(mode=0o600)
    path = environment.folder / relative
    path.chmod(mode)
    with pytest.raises(EnvironmentFolderError) as caught:
        environment.prepare()
    command = f"chmod {wanted} '{path}'"
    assert str(caught.value) == f"{path} has mode {mode:04o} and is open to other users: run {command}"
    subprocess.run(command, shell=True, check=True)  # noqa: S602  the command of the message
    environment.prepare()


def test_several_wide_modes_are_fixed_by_one_command(environment: Environment) -> None:
    """A copied environment has many wide modes; the message names the first, and the command that fixes all."""
    for name in ("a.key", "b.key", "c.key"):
        (environment.clients_folder / name).touch()
        (environment.clients_folder / name).chmod(0o644)
    first = environment.clients_folder / "a.key"
    command = f"chmod -R go-rwx '{environment.state_folder}'"
    with pytest.raises(EnvironmentFolderError) as caught:
        environment.prepare()
    assert str(caught.value) == (
        f"{first} has mode 0644 and is open to other users: run chmod 600 '{first}' "
        f"(and 2 more: run {command} to fix all)"
    )
    subprocess.run(command, shell=True, check=True)  # noqa: S602  the command of the message
    environment.prepare()


@pytest.mark.parametrize("relative", [".nfcli", ".nfcli/keys", ".nfcli/clients/x.key", ".nfcli/tokens/w"])
def test_symbolic_link_is_refused(tmp_path: Path, environment: Environment, relative: str) -> None:
    """A link could lead to files that another user chose."""
    path = environment.folder / relative
    target = tmp_path / "elsewhere"
    shutil.move(path, target) if path.exists() else target.mkdir(mode=0o700)
    path.symlink_to(target)
    with pytest.raises(EnvironmentFolderError) as caught:
        environment.prepare()
    assert str(caught.value) == f"{path} is a symbolic link: replace it with what it points to"


def test_files_of_another_user_are_refused(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns a file can read and change it, whatever its mode; the remedy keeps what is in it."""
    owner = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(EnvironmentFolderError) as caught:
        environment.prepare()
    folder = environment.state_folder
    assert str(caught.value) == (
        f"{folder} belongs to user {owner}, not to user {NOBODY} who runs nfcli: "
        f"run nfcli as that user, or run chown {NOBODY} '{folder}'"
    )


@pytest.mark.parametrize("relative", [".nfcli", ".nfcli/run"])
def test_file_in_place_of_a_folder_is_refused(tmp_path: Path, relative: str) -> None:
    """It is never removed."""
    path = tmp_path / relative
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch()
    with pytest.raises(EnvironmentFolderError) as caught:
        Environment(tmp_path, None).prepare()
    assert str(caught.value) == f"{path} must be a folder: move away what is there"


def test_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFolderError) as caught:
        Environment(tmp_path / "file" / "environment", None).prepare()
    assert str(caught.value) == (
        f"folder {tmp_path / 'file' / 'environment'} can't be created: Not a directory: "
        "name a folder for the state with --state DIR, NFCLI_STATE or state: in the inventory"
    )


def test_modes_of_sockets_are_not_checked(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's mode follows the umask of the process that bound it; its folder keeps other users out."""
    monkeypatch.chdir(environment.run_folder)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("w.ipc")
        Path("w.ipc").chmod(0o777)
        environment.prepare()


def test_file_that_disappears_meanwhile_does_no_harm(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases and atomic writes create and remove files at any moment."""
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [*real(folder), folder / "gone"])
    environment.prepare()


def test_folder_that_cannot_be_read_is_named(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is simulated, as the test may run as root."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(EnvironmentFolderError) as caught:
        environment.prepare()
    state = environment.state_folder
    assert str(caught.value) == f"{state} can't be read: run chmod 700 '{state}'"


def test_socket_is_in_the_run_folder(tmp_path: Path) -> None:
    """Provided that its path is short enough."""
    short = Path("/e")
    assert Environment(short, None).socket_endpoint("w") == "ipc:///e/.nfcli/run/w.ipc"
    assert not list(tmp_path.iterdir())


@settings(deadline=None)
@given(length=st.integers(min_value=1, max_value=300))
def test_socket_path_always_fits(length: int) -> None:
    """Whatever the folder, the path has at most 107 bytes, and a folder always gives the same path."""
    environment = Environment(Path("/" + "é" * length), None)
    endpoint = environment.socket_endpoint("w")
    assert endpoint == environment.socket_endpoint("w")
    assert len(os.fsencode(endpoint.removeprefix("ipc://"))) <= 107


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
@pytest.mark.parametrize(("more", "is_there"), [(0, True), (1, False)])
def test_socket_path_of_107_bytes_is_not_too_long(tmp_path: Path, more: int, is_there: bool) -> None:
    """That is the longest that can be bound."""
    folder = tmp_path / ("x" * (106 + more - len(f"{tmp_path}/.nfcli/run/w.ipc")))
    folder.joinpath(".nfcli/run").mkdir(parents=True)
    path = Path(Environment(folder, None).socket_endpoint("w").removeprefix("ipc://"))
    assert (path == folder / ".nfcli/run/w.ipc") is is_there
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
@pytest.mark.parametrize(("more", "is_there"), [(0, True), (1, False)])
def test_runtime_folder_with_room_for_a_label_has_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int, is_there: bool
) -> None:
    """Its own path may be that long: a socket in it has 107 bytes."""
    runtime = tmp_path / ("x" * (106 + more - len(f"{tmp_path}/nfcli/{'x' * 24}")))
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    file = Environment(Path("/" + "x" * 100), None).socket_file("w")
    assert (file.parent == runtime / "nfcli") is is_there
    assert len(os.fsencode(file)) == 107 or not is_there


def test_socket_of_a_long_path_is_in_a_private_folder(tmp_path: Path) -> None:
    """A socket can be bound there, and each worker of each environment has a path of its own."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    first, second = Environment(tmp_path / ("a" * 100), None), Environment(tmp_path / ("b" * 100), None)
    endpoints = [first.socket_endpoint("v"), first.socket_endpoint("w"), second.socket_endpoint("v")]
    assert len(set(endpoints)) == 3
    path = Path(endpoints[0].removeprefix("ipc://"))
    assert path.parent == runtime / "nfcli"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    path.unlink()


def test_socket_of_a_path_that_is_not_utf8_is_in_the_short_folder() -> None:
    """Pyzmq can't pass such a path on."""
    folder = Path(os.fsdecode(b"/caf\xe9"))
    assert Environment(folder, None).socket_endpoint("w").startswith(f"ipc://{os.environ['XDG_RUNTIME_DIR']}/nfcli/")


@pytest.mark.parametrize("runtime", ["", "relative", "/no/such/folder", "/" + "x" * 100])
def test_short_folder_without_a_runtime_folder_is_in_tmp(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable XDG_RUNTIME_DIR is ignored."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    endpoint = Environment(Path("/" + "x" * 100), None).socket_endpoint("w")
    assert endpoint.startswith(f"ipc:///tmp/nfcli-{os.geteuid()}/")


def test_short_folder_that_another_user_created_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That user could listen in the worker's place."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / "r"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    (runtime / "nfcli").symlink_to(tmp_path)
    with pytest.raises(EnvironmentFolderError, match=r"/nfcli is a symbolic link"):
        Environment(Path("/" + "x" * 100), None).socket_endpoint("w")


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_state_in_a_base_folder_of_norfab_is_stored_elsewhere(tmp_path: Path, home: Path, below: str) -> None:
    """NorFab's file service publishes that folder, with all folders below."""
    (tmp_path / "__norfab__").mkdir()
    environment = Environment(tmp_path / below, None)
    assert environment.published_by == tmp_path
    environment.prepare()
    assert environment.state_folder.parent == home / ".local" / "state" / "nfcli" / "environments"
    label = hashlib.sha256(os.fsencode(environment.folder)).hexdigest()[:12]  # the state of earlier versions is there
    assert environment.state_folder.name == f"{environment.folder.name}-{label}"
    assert environment.keys_folder.is_dir()
    assert not (environment.folder / ".nfcli").exists()
    assert environment.state_folder != Environment(tmp_path / "other", None).state_folder
    assert Environment(tmp_path / below, None).state_folder == environment.state_folder


def test_state_that_norfab_publishes_is_refused_until_it_is_moved(tmp_path: Path) -> None:
    """NorFab was started in an environment that existed."""
    Environment(tmp_path, None).prepare()
    (tmp_path / "__norfab__").mkdir()
    environment = Environment(tmp_path, None)
    with pytest.raises(EnvironmentFolderError, match=r" gives it to every client of the broker: "):
        environment.prepare()
    assert not environment.state_folder.exists()
    command = str(environment.publication_problem()).partition("run ")[2].partition(", then")[0]
    subprocess.run(["sh", "-c", command], check=True)
    environment.prepare()
    assert environment.publication_problem() is None


def test_state_that_is_stored_twice_has_to_leave_the_published_folder(tmp_path: Path) -> None:
    """The one outside is the one that is used."""
    (tmp_path / "__norfab__").mkdir()
    environment = Environment(tmp_path, None)
    environment.prepare()
    (tmp_path / ".nfcli").mkdir()
    remedy = f": stop the workers, move {tmp_path / '.nfcli'} out of {tmp_path}, then "
    assert remedy in str(environment.publication_problem())


def test_state_that_would_be_published_everywhere_is_refused(home: Path) -> None:
    """NorFab's base folder is the user's home."""
    (home / "__norfab__").mkdir()
    for folder in (home, home / "environment", find_environment().folder):
        with pytest.raises(EnvironmentFolderError, match=r": set XDG_STATE_HOME to a folder elsewhere, or remove "):
            Environment(folder, None).prepare()
    assert [path.name for path in home.iterdir()] == ["__norfab__"]
