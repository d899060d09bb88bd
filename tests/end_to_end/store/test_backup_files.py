"""The files of `nfcli --backup` and `--restore`: private, complete, and validated before use."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nfcli import Client
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.tasks.backup import parse_trailer
from nfcli.shell.cli import main
from nfcli.shell.maintenance.backup_command import RESTORED_NOTE
from nfcli.shell.transport.base import not_running
from support.programs import ProgramStarter
from support.workers import EnvironmentFactory, NfcliRunner

pytestmark = pytest.mark.slow

NOTE = f"{RESTORED_NOTE}\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(environment: Environment, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run nfcli in this process, where it starts in no time; return exit status, stdout and stderr."""

    def run_main(*words: str, where: Environment = environment) -> tuple[int, str, str]:
        status = main(["-c", "-i", str(where.inventory_file), *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run_main


def listed(client: Client) -> list[dict[str, str]]:
    """Return a worker's listing of its tokens, without their age."""
    (result,) = client.run_job("fastmcp", "bearer_token_list").values()
    return [{key: value for key, value in row.items() if key != "age"} for row in result["result"]]


@pytest.mark.usefixtures("worker")
def test_the_file_is_private_whatever_the_umask(
    environment: Environment, start_program: ProgramStarter, tmp_path: Path
) -> None:
    """It holds tokens in clear; the folder is left as it is, and so is everything else in it."""
    tmp_path.chmod(0o777)
    file = tmp_path / "b.db"
    program = start_program("--backup", str(file), environment=environment, umask=0)
    assert (program.end(), program.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["b.db"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, tmp_path)] == [0o600, 0o777]
    assert not list(environment.run_folder.glob("*.backup"))


def forged(database: bytes) -> bytes:
    """Return what a backup of somebody who knows its form, and not the fleet key, looks like."""
    return database + f"\nnfcli backup 1 sha256 {hashlib.sha256(database).hexdigest()}\n".encode()


def database_of(backup: bytes) -> bytes:
    """Return the database in a backup."""
    trailer = parse_trailer(backup)
    assert trailer is not None
    return backup[: -trailer[0]]


def foreign(folder: Path) -> bytes:
    """Return a database of another program."""
    with closing(sqlite3.connect(folder / "foreign.db")) as connection:
        connection.execute("CREATE TABLE Cache(name)")
        connection.commit()
    return (folder / "foreign.db").read_bytes()


NO_BACKUP = "{file} is not a backup, nothing was changed: name a file that nfcli --backup has written"
ALTERED = "{file} was truncated or altered since it was written, nothing was changed: use another backup"
DAMAGED = f"{DEFAULT_WORKER}: the backup is damaged or no token database, nothing changed: use another one"
WRONG_FILES: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "empty": (lambda _data, _folder: b"", NO_BACKUP),
    "text": (lambda _data, _folder: b"workers: {}\n" * 100, NO_BACKUP),
    "only a seal": (lambda _data, _folder: forged(b""), NO_BACKUP),
    "cut short": (lambda data, _folder: data[: len(data) // 2], ALTERED),
    "without its last byte": (lambda data, _folder: data[:-1], ALTERED),
    "a flipped bit": (lambda data, _folder: data[:9000] + bytes([data[9000] ^ 1]) + data[9001:], ALTERED),
    "of another program": (lambda _data, folder: foreign(folder), ALTERED),
    "forged, of another program": (lambda _data, folder: forged(foreign(folder)), DAMAGED),
    "forged, cut short": (lambda data, _folder: forged(data[: len(data) // 2]), DAMAGED),
    "forged, with a hole": (
        lambda data, _folder: forged(data[:8192] + bytes(8192) + database_of(data)[16384:]),
        DAMAGED,
    ),
}


@pytest.fixture(scope="module")
def backup(
    environment: Environment, client: Client, nfcli: NfcliRunner, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """Return a backup of a worker with 50 tokens."""
    for number in range(50):
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": f"token-{number}"})
    file = tmp_path_factory.mktemp("backups") / "b.db"
    assert nfcli("--backup", str(file), environment=environment).returncode == 0
    return file.read_bytes()


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_no_whole_backup_changes_nothing(
    client: Client, run: Run, backup: bytes, tmp_path: Path, kind: str
) -> None:
    """One line, status 1; a worker believes no file that a client has let through."""
    make, error = WRONG_FILES[kind]
    file = tmp_path / "wrong.db"
    file.touch(mode=0o600)
    file.write_bytes(make(backup, tmp_path))
    before = listed(client)
    assert run("--restore", str(file), "--unverified") == (1, "", f"nfcli: {error.format(file=file)}\n")
    if kind.startswith("forged"):
        status, _, said = run("--restore", str(file))
        assert (status, said.startswith(f"nfcli: {DEFAULT_WORKER}: the backup has no seal, ")) == (1, True)
    assert listed(client) == before
    assert not list(client.environment.run_folder.glob("*.restore"))


def test_a_backup_that_somebody_altered_is_refused(client: Client, run: Run, backup: bytes, tmp_path: Path) -> None:
    """Its hash was computed again, as anybody can; the seal can't be. A genuine one is restored."""
    altered = database_of(backup).replace(b"token-49", b"t0ken-49")
    old, new = (hashlib.sha256(data).hexdigest().encode() for data in (database_of(backup), altered))
    trailer = backup[len(altered) :].replace(old, new)
    file = tmp_path / "altered.db"
    file.touch(mode=0o600)
    file.write_bytes(altered + trailer)
    before = listed(client)
    error = "the backup was altered since it was sealed, nothing changed: use another backup"
    for words in ((), ("--unverified",)):
        assert run("--restore", str(file), *words) == (1, "", f"nfcli: {DEFAULT_WORKER}: {error}\n")
    assert listed(client) == before
    file.write_bytes(backup)
    assert run("--restore", str(file))[::2] == (0, NOTE)


CHECK_IT = "check that folder, or name a file in another one"


@pytest.mark.usefixtures("worker")
def test_where_a_backup_cannot_be_written_is_reported_in_one_line(run: Run, tmp_path: Path) -> None:
    """Nothing is overwritten, nothing is left."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    there = "exists already: nothing was overwritten, name another file"
    for name, problem in [
        ("there", there),
        ("link", there),
        (".", there),
        ("missing/b.db", f"can't be written: No such file or directory: {CHECK_IT}"),
        ("there/b.db", f"can't be written: Not a directory: {CHECK_IT}"),
        ("/proc/b.db", f"can't be written: No such file or directory: {CHECK_IT}"),
        ("b" * 250, f"can't be written: File name too long: {CHECK_IT}"),
    ]:
        file = tmp_path / name
        assert run("--backup", str(file)) == (1, "", f"nfcli: {file} {problem}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.usefixtures("worker")
def test_what_cannot_be_read_is_no_backup(run: Run, tmp_path: Path) -> None:
    """A pipe in its place blocks nothing; a file that others can read is restored, with a warning."""
    os.mkfifo(tmp_path / "pipe")
    for name, problem in [
        ("missing", "can't be read: No such file or directory: name a backup file"),
        (".", "can't be read: Is a directory: name a backup file"),
        ("pipe", "is not a backup, nothing was changed: name a file that nfcli --backup has written"),
    ]:
        file = tmp_path / name
        assert run("--restore", str(file)) == (1, "", f"nfcli: {file} {problem}\n")
    open_file = tmp_path / "open.db"
    assert run("--backup", str(open_file))[0] == 0
    open_file.chmod(0o640)
    done = run("--restore", str(open_file))
    warning = f"{open_file} holds tokens and is open to other users: run chmod 600 {open_file}\n"
    assert (done[0], done[2]) == (0, warning + NOTE)


def test_without_a_worker_nothing_is_written(environment_factory: EnvironmentFactory, run: Run, tmp_path: Path) -> None:
    """And none is started with -c; of several, one has to be named."""
    environment = environment_factory("one", "two")
    for words, status, error in [
        (["--worker", "one"], 3, not_running("one")),
        (["--worker", "three"], 3, "unknown worker 'three': there is one, two"),
        ([], 2, "each worker has its own tokens: name one with --worker: one, two"),
    ]:
        said = run("--backup", str(tmp_path / "b.db"), *words, where=environment)
        assert said == (status, "", f"nfcli: {error}\n")
    assert not list(tmp_path.iterdir())
