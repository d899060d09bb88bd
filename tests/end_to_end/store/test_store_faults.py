"""The token database fails under a running worker: every command and MCP requests meet each fault, and its end.

A change is refused in time with a reason and leaves everything as it was; tokens that are known go on being verified,
and no others are. Damage: test_store_damage.py.
"""

from __future__ import annotations

import json
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
from support.small_disk import fill, small_disk
from support.tokens.store_site import CHANGES, DELETE, SETTINGS, STATE, STORE, STORED, Site, status_of_request
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
        with suppress(ProcessLookupError):  # killed
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


DISK_FAULTS: list[tuple[Fault, str]] = [
    (file_read_only, "{folder}/cache.db can't be written, nothing changed: run chmod 600 {folder}/cache.db"),
    (folder_read_only, "{folder} can't be written, nothing changed: run chmod 700 {folder}"),
    (immutable, "the token database in {folder} failed with disk I/O error, nothing changed: check that disk"),
    (failing_writes, "the token database in {folder} failed with disk I/O error, nothing changed: check that disk"),
]
OTHER_FAULTS: list[tuple[Fault, str]] = [
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


@pytest.mark.parametrize(("fault", "reason"), DISK_FAULTS, ids=[fault.__name__ for fault, _ in DISK_FAULTS])
def test_a_disk_that_refuses_writes_stores_nothing_and_keeps_no_token(
    site: Any, nfcli: NfcliRunner, fault: Fault, reason: str
) -> None:
    """What was deleted is refused at once, after a kill too, and is removed once the disk allows it."""
    site.reset()
    reason = reason.format(folder=site.folder)
    revoked = (
        f"revoked, also after a restart, and not yet removed from disk: {reason.replace(', nothing changed', '')}; "
        "the worker then removes it"
    )
    gone = {"listed": [], "checked": dict.fromkeys(STATE["checked"], False)}
    gone["answered"] = dict.fromkeys(STATE["answered"], 401)
    with fault(site):
        assert site.run(STORE, username="carol", token="new") == [reason]
        words = ["fastmcp", "auth", "delete-token", "token", "good"]
        done = nfcli("-c", *words, environment=site.environment)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{DEFAULT_WORKER}: {revoked}\n")
        assert site.run(DELETE, username="bob") == [revoked]
        assert site.state() == gone
        assert site.run(STORE, username="carol", token="new") == [reason]
        assert site.run("get_status")["disk"].startswith("tokens revoked and not yet removed from disk: 3: ")
        done = nfcli("--check", environment=site.environment)
        assert done.returncode == 1
        assert re.search(
            rf"^FAULT {DEFAULT_WORKER} (disk: tokens revoked and not yet|database: )", done.stdout, re.MULTILINE
        )
        site.kill()
    site.start()
    assert site.state() == gone
    assert site.run("get_status")["disk"] == "ok"
    site.reset()


@pytest.mark.parametrize(("fault", "reason"), OTHER_FAULTS, ids=[fault.__name__ for fault, _ in OTHER_FAULTS])
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
    """Run a worker whose state has a small file system for itself; only root may mount one."""
    environment = environment_factory(**SETTINGS)
    with small_disk(environment.state_folder, size="3m"), ExitStack() as stack:
        environment.prepare()
        yield Site(environment, running_worker, stack)


def store_until_refused(site: Any) -> Any:
    """Store tokens on a full disk until that is refused; return what is answered."""
    for number in range(100):  # the last page of a file may have room
        fill(site.environment.state_folder)
        said = site.run(STORE, username="carol", token=f"c{number}-{'x' * 500}")
        if said is not True:
            return said
    return pytest.fail("the disk is never full")


def test_on_a_full_disk_nothing_is_stored_and_tokens_can_be_revoked(full_site: Any, nfcli: NfcliRunner) -> None:
    """Space is kept back for that: the answer is the usual one, and so are the audit trail and a restart."""
    site, environment = full_site, full_site.environment
    site.reset()
    (refusal,) = store_until_refused(site)
    assert re.fullmatch(r"the (disk of|audit trail) .*, nothing changed: make room on .*", refusal)
    site.run(DELETE, username="carol")
    for words in ("token good", "username bob"):
        done = nfcli("-c", "fastmcp", "auth", "delete-token", *words.split(), environment=environment)
        assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {DEFAULT_WORKER: True}, "")
    # Not listed: a listing needs room for its line in the audit trail.
    assert [site.run("bearer_token_check", token=token) for token in STORED] == [False] * len(STORED)
    assert [status_of_request(site.worker.url, token) for token in STORED] == [401] * len(STORED)
    fill(environment.state_folder)
    done = nfcli("--check", environment=environment)
    reason = f"the disk of {site.folder} is full: make room on it"
    assert (done.returncode, f"FAULT {DEFAULT_WORKER} disk: {reason}" in done.stdout.splitlines()) == (1, True)
    assert site.run("get_status")["disk"] == reason
    (environment.state_folder / "ballast").unlink()
    site.kill()
    site.start()
    assert site.run("bearer_token_list") == []
    assert site.run(STORE, username="alice", token="good") is True
    assert site.run("verify_audit")["lines"] > 0
    assert site.run("get_status")["disk"] == "ok"


def test_a_worker_starts_on_a_full_disk(full_site: Any) -> None:
    """With the space that is kept back, and revokes there."""
    site = full_site
    site.reset()
    site.kill()
    fill(site.environment.state_folder)
    site.start()
    assert site.state() == STATE
    said = site.run(DELETE, token="good")
    assert said is True or said[0].startswith("revoked, also after a restart, ")
    assert site.run("bearer_token_check", token="good") is False
