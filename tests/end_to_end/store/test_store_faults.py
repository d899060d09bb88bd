"""The token database fails under a running worker: every command and MCP requests meet each fault, and its end.

A change is refused in time with a reason and leaves everything as it was; tokens that are known go on being verified,
and no others are. Damage: test_store_damage.py.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER
from support.programs import InTime
from support.tokens.store_site import CHANGES, DELETE, SETTINGS, STATE, STORE, Site
from support.workers import EnvironmentFactory, NfcliRunner, WorkerRunner

pytestmark = pytest.mark.slow

Fault = Callable[[Any], Any]

CHANGE_SECONDS = 6.0

# Takes the database's lock and keeps it until its stdin ends.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def site(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Iterator[Any]:
    """Run the worker that meets one fault after the other."""
    with ExitStack() as stack:
        yield Site(environment_factory(**SETTINGS), running_worker, stack)


# The faults: each lasts for a `with` block


@contextmanager
def locked(site: Any) -> Iterator[None]:
    """Hold the database's lock in another process."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, str(site.folder / "cache.db")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(10)


@contextmanager
def read_only(path: Path, mode: int) -> Iterator[None]:
    """Take the right to write away from its owner, too."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def file_read_only(site: Any) -> Any:
    """Make the database's file read-only."""
    return read_only(site.folder / "cache.db", 0o400)


def folder_read_only(site: Any) -> Any:
    """Make the database's folder read-only."""
    return read_only(site.folder, 0o500)


@contextmanager
def immutable(site: Any) -> Iterator[None]:
    """Have the file system refuse writes to files that are open, which needs root and a file system that can."""
    files = [str(site.folder / name) for name in ("cache.db", "cache.db-wal")]
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "+i", *files], capture_output=True, check=False).returncode:
        pytest.skip("files can't be made immutable here")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", *files], check=True)


@contextmanager
def failing_writes(site: Any) -> Iterator[None]:
    """Have the system refuse to make the write-ahead log longer than it is."""
    limit = (site.folder / "cache.db-wal").stat().st_size
    pid, infinite = site.worker.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, infinite))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (infinite, infinite))


@contextmanager
def folder_gone(site: Any) -> Iterator[None]:
    """Move the database's folder away."""
    elsewhere = site.folder.with_name("moved")
    site.folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(site.folder)


FAULTS: list[tuple[Fault, str]] = [
    (file_read_only, "{folder}/cache.db can't be written, nothing changed: run chmod 600 {folder}/cache.db"),
    (folder_read_only, "{folder} can't be written, nothing changed: run chmod 700 {folder}"),
    (immutable, "the token database in {folder} failed with disk I/O error, nothing changed: check that disk"),
    (failing_writes, "the token database in {folder} failed with disk I/O error, nothing changed: check that disk"),
    (folder_gone, "the token database in {folder} was moved or replaced, nothing changed: restart the worker"),
    (locked, "token store busy, nothing changed: another process holds its database"),
]


def commands_at_once(site: Any, nfcli: NfcliRunner) -> list[tuple[int, str, str]]:
    """Run each change as a program of its own; return their exit statuses and what they print."""
    with ThreadPoolExecutor(len(CHANGES)) as pool:
        run = partial(nfcli, "-c", "fastmcp", "auth", environment=site.environment)
        done = list(pool.map(lambda words: run(*words.split()), CHANGES))
    return [(each.returncode, each.stdout, each.stderr) for each in done]


def commands_in_a_row(site: Any, nfcli: NfcliRunner) -> list[tuple[int, str, str]]:
    """Do as `commands_at_once` with a single script, which is quicker where no lock holds each line up."""
    script = "".join(f"fastmcp auth {words}\n" for words in CHANGES)
    done = nfcli("-c", stdin=script, environment=site.environment)
    error_lines = re.sub(r"^line \d+: ", "", done.stderr, flags=re.MULTILINE).splitlines(keepends=True)
    return [(done.returncode, done.stdout, line) for line in error_lines]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_refuses_every_change_in_time_and_nothing_else(
    site: Any, nfcli: NfcliRunner, in_time: InTime, fault: Fault, reason: str
) -> None:
    """Nothing has changed meanwhile, when it is over, nor for the next worker; without a restart changes work again."""
    site.reset()
    reason = reason.format(folder=site.folder)
    with fault(site):
        with ThreadPoolExecutor(1 + len(CHANGES)) as pool:
            changes = pool.submit(in_time, CHANGE_SECONDS, site.change)
            run = commands_in_a_row if fault is not locked else commands_at_once
            commands = pool.submit(run, site, nfcli)
            assert site.state() == STATE
            assert changes.result() == [[reason]] * len(CHANGES)
            assert commands.result() == [(1, "", f"{DEFAULT_WORKER}: {reason}\n")] * len(CHANGES)
        assert site.state() == STATE
    assert site.state() == STATE
    assert any(message.endswith(reason) for message in site.logged())
    site.reset()
    site.kill()
    site.start()
    assert site.state() == STATE
    assert site.change() == [True] * len(CHANGES)


@pytest.fixture
def full_site(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Iterator[Any]:
    """Run a worker whose database has a file system of 1 MiB for itself; only root may mount one."""
    environment = environment_factory(**SETTINGS)
    environment.prepare()
    folder = environment.tokens_folder(DEFAULT_WORKER)
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        with ExitStack() as stack:
            yield Site(environment, running_worker, stack)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def use_up(folder: Path) -> None:
    """Write to a file until the disk is full."""
    ballast_file = folder / "ballast"
    ballast_file.touch(mode=0o600)
    with ballast_file.open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def test_on_a_full_disk_nothing_is_stored_and_tokens_can_be_revoked(full_site: Any, nfcli: NfcliRunner) -> None:
    """The room that the write-ahead log has taken is given back for that; with room again all is well."""
    site, long = full_site, "x" * 1000
    site.reset()
    for _ in range(10):
        assert site.run(STORE, username="alice", token="good") is True
    use_up(site.folder)
    assert site.run(DELETE, token="good") is True
    without_good = site.state()
    assert (without_good["checked"]["good"], without_good["answered"]["good"]) == (False, 401)
    use_up(site.folder)
    done = nfcli(
        "-c", "fastmcp", "auth", "create-token", "username", "carol", "token", long, environment=site.environment
    )
    reason = f"the disk of {site.folder} is full, nothing changed: make room on it"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{DEFAULT_WORKER}: {reason}\n")
    assert any(message.endswith(reason) for message in site.logged())
    assert site.state() == without_good
    (site.folder / "ballast").unlink()
    assert site.state() == without_good
    assert site.run(STORE, username="carol", token=long) is True
    assert site.run(DELETE, username="carol") is True
    site.kill()
    site.start()
    assert site.state() == without_good
