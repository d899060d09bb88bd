"""The token database is damaged under a running worker: changes are refused, and the next start loses nothing silently.

Tokens that are known go on being verified as long as the worker runs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER
from nfcli.models.environment.worker_lock import read_owner
from support.programs import ProgramStarter
from support.tokens.store_site import CHANGES, SETTINGS, STATE, STORE, Site
from support.workers import EnvironmentFactory, WorkerRunner

pytestmark = pytest.mark.slow

WORKER = [sys.executable, "-m", "nfcli.worker", "--name", DEFAULT_WORKER]


def flip_root_of(name: str) -> Callable[[Path], None]:
    """Return what flips a bit in the first byte of a table or an index."""

    def flip(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
            [(page,)] = other.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
            with (folder / "cache.db").open("r+b") as stream:
                stream.seek((page - 1) * 4096)
                (byte,) = stream.read(1)
                stream.seek(-1, os.SEEK_CUR)
                stream.write(bytes([byte ^ 0x40]))
            # Otherwise the worker would go on with the pages that it has read.
            other.execute("PRAGMA user_version = 1")

    return flip


def cut_log_to(share: float) -> Callable[[Path], None]:
    """Return what cuts the write-ahead log off, to this share of its length."""

    def cut(folder: Path) -> None:
        log = folder / "cache.db-wal"
        os.truncate(log, int(log.stat().st_size * share))

    return cut


DAMAGED = (
    "{folder}/cache.db is damaged or no token database, nothing changed: restore it from a backup, or move it away "
)
DAMAGED += "to start without tokens"
CUT = "the write-ahead log of the token database in {folder} was truncated by another program, nothing changed: "
CUT += "save the output of list-tokens, restart the worker and compare"


@pytest.fixture
def damaged_site(environment_factory: EnvironmentFactory, running_worker: WorkerRunner) -> Iterator[Any]:
    """Run a worker that is going to be damaged."""
    with ExitStack() as stack:
        site = Site(environment_factory(**SETTINGS), running_worker, stack)
        site.reset()
        with closing(sqlite3.connect(site.folder / "cache.db", isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield site


@pytest.mark.parametrize("name", ["Cache", "Cache_key_raw", "Cache_tag_rowid"])
def test_a_flipped_bit_refuses_changes_and_the_next_start(
    damaged_site: Any, start_program: ProgramStarter, name: str
) -> None:
    """Known tokens are verified as long as the worker runs; the next one says one line and leaves nothing open."""
    site, reason = damaged_site, DAMAGED.format(folder=damaged_site.folder)
    flip_root_of(name)(site.folder)
    assert site.change() == [[reason]] * len(CHANGES)
    assert site.state() == STATE
    assert any(message.endswith(reason) for message in site.logged())
    site.kill()
    before = (site.folder / "cache.db").read_bytes()
    program = start_program(command=[*WORKER, "--environment", str(site.environment.folder)])
    assert (program.end(), program.err) == (1, f"{DEFAULT_WORKER}: {reason}\n")
    assert json.loads(program.out) == {"event": "failed", "name": DEFAULT_WORKER, "error": reason, "exit_status": 1}
    assert read_owner(site.environment.lock_file(DEFAULT_WORKER)) is None
    assert list(site.environment.run_folder.glob("*.json")) == []
    assert (site.folder / "cache.db").read_bytes() == before


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_log_that_was_cut_off_refuses_changes_until_the_next_start(damaged_site: Any, share: float) -> None:
    """Written behind its end, they would be lost. What was in the log is verified until then, and perhaps lost then."""
    site, reason = damaged_site, CUT.format(folder=damaged_site.folder)
    for token in ("late", "later"):
        assert site.run(STORE, username="zoe", token=token) is True
    before = site.state()
    cut_log_to(share)(site.folder)
    assert site.change() == [[reason]] * len(CHANGES)
    assert site.state() == before
    assert [site.run("bearer_token_check", token=token) for token in ("late", "later")] == [True, True]
    assert any(message.endswith(reason) for message in site.logged())
    site.kill()
    site.start()
    found = site.state()
    lost = len(before["listed"]) - len(found["listed"])
    assert found == before | {"listed": before["listed"][: len(before["listed"]) - lost]}
    assert 1 <= lost <= 2
    assert site.change() == [True] * len(CHANGES)
