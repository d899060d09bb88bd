"""The record of signed jobs: each runs once within the window, across restarts and clocks that jump."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.worker.admission import replay_memory
from nfcli.worker.admission.replay_memory import WINDOW_SECONDS, ReplayMemory

BOOT, NEXT_BOOT = b"boot 1", b"boot 2"
REPEATED, UNKNOWN = "it was run before", "it was signed before this worker's record of signed jobs begins"
Open = Callable[..., ReplayMemory]


@pytest.fixture
def open_memory(tmp_path: Path, clock: SimpleNamespace) -> Open:
    """Open the record, with the test's clock; what was opened before has been killed."""

    def make(boot_id: bytes = BOOT, **options: int) -> ReplayMemory:
        return ReplayMemory(tmp_path / "w1.signed_jobs", clock=lambda: clock.now, boot_id=boot_id, **options)

    return make


def problem(memory: ReplayMemory, uuid: str, at: float) -> str:
    """Add a job of client `c` that was signed at a time in seconds; return the beginning of what is wrong."""
    return (memory.add("c", uuid, int(at * 1_000)) or "").partition(":")[0]


def test_job_is_new_once(open_memory: Open, clock: SimpleNamespace) -> None:
    """For each client and uuid."""
    with open_memory() as memory:
        at = clock.now + 1
        assert problem(memory, "u1", at) == ""
        assert problem(memory, "u1", at) == REPEATED
        assert problem(memory, "u1", at + 1) == REPEATED
        assert problem(memory, "u2", at) == ""
        assert memory.add("d", "u1", int(at * 1_000)) is None


def test_uuids_of_any_text_are_remembered(open_memory: Open, clock: SimpleNamespace) -> None:
    """They come from the wire."""
    with open_memory() as memory:
        for uuid in ("", "\ud800", "ö" * 1_000, "a b"):
            assert problem(memory, uuid, clock.now + 1) == ""
            assert problem(memory, uuid, clock.now + 1) == REPEATED


def test_restarted_worker_remembers(open_memory: Open, clock: SimpleNamespace) -> None:
    """Killed or stopped; what it had not seen is new, also if it was signed before the restart."""
    first = open_memory()
    at = clock.now + 1
    problem(first, "u1", at)
    clock.now += 5
    with open_memory() as memory:
        assert problem(memory, "u1", at) == REPEATED
        assert problem(memory, "u2", at) == ""
    first.__exit__()


def test_worker_remembers_over_many_restarts(open_memory: Open, clock: SimpleNamespace) -> None:
    """Each start writes the record again."""
    at = clock.now + 5
    for number in range(3):
        clock.now += 1
        with open_memory() as memory:
            assert problem(memory, "u1", at) == (REPEATED if number else "")
            assert problem(memory, f"v{number}", at) == ""
    with open_memory() as memory:
        assert [problem(memory, uuid, at) for uuid in ("v0", "v1", "v2", "v3")] == [*[REPEATED] * 3, ""]


def test_record_that_cannot_be_written_at_the_start_stops_no_job(
    open_memory: Open, clock: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says so; memory holds the jobs, and the next start trusts no earlier signature."""
    file = tmp_path / "w1.signed_jobs"
    file.mkdir()
    with open_memory() as memory:
        assert [problem(memory, "u1", clock.now + 1) for _ in range(2)] == ["", REPEATED]
    assert [message.rpartition(": ")[0] for message in caplog.messages] == [
        f"record of signed jobs not written: {file}"
    ]
    file.rmdir()
    clock.now += 5
    with open_memory() as memory:
        assert problem(memory, "u1", clock.now - 4) == UNKNOWN


@contextmanager
def read_only_disk() -> Iterator[None]:
    """Refuse every change of a file, as a disk does that the system made read-only after an error."""
    change, open_file = os.O_WRONLY | os.O_RDWR | os.O_CREAT, os.open

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open_to_read(path: os.PathLike[str], flags: int, *mode: int) -> int:
        return refuse() if flags & change else open_file(path, flags, *mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", refuse)
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "open", open_to_read)
        yield


def test_on_a_disk_that_turned_read_only_no_job_runs_that_a_restart_would_run_again(
    open_memory: Open, clock: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old record stays there and is trusted at the next start; one line says so. Deletions run nevertheless."""
    file = tmp_path / "w1.signed_jobs"
    with open_memory() as memory:
        at = clock.now + 1
        assert problem(memory, "u1", at) == ""
        with read_only_disk():
            for _ in range(2):
                assert memory.add("c", "u2", int(at * 1_000)) == (
                    f"this worker can't record it ({file}: Read-only file system), and would run it again after a "
                    "restart: make the disk writable and send it again"
                )
            assert problem(memory, "u1", at) == REPEATED
            assert memory.add("c", "d1", int(at * 1_000), may_be_repeated=True) is None
            assert memory.add("c", "d1", int(at * 1_000), may_be_repeated=True) is not None
    assert caplog.messages == [
        f"record of signed jobs neither written nor removed, signed jobs are refused: {file}: Read-only file system"
    ]
    with open_memory() as memory:
        assert [problem(memory, uuid, at) for uuid in ("u1", "u2")] == [REPEATED, ""]


def test_record_is_written_again_once_the_disk_is_writable(open_memory: Open, clock: SimpleNamespace) -> None:
    """With what was run in the meantime."""
    with open_memory() as memory:
        at = clock.now + 1
        with read_only_disk():
            assert problem(memory, "u1", at).startswith("this worker can't record it")
            assert memory.add("c", "d1", int(at * 1_000), may_be_repeated=True) is None
        assert problem(memory, "u1", at) == ""
    with open_memory() as memory:
        assert [problem(memory, uuid, at) for uuid in ("d1", "u1", "u2")] == [REPEATED, REPEATED, ""]


def test_worker_that_starts_on_a_read_only_disk_runs_no_signed_job(open_memory: Open, clock: SimpleNamespace) -> None:
    """What the record has stays known."""
    with open_memory() as memory:
        assert problem(memory, "u1", clock.now + 1) == ""
    with read_only_disk(), open_memory() as memory:
        assert problem(memory, "u1", clock.now + 1) == REPEATED
        assert problem(memory, "u2", clock.now + 1).startswith("this worker can't record it")


def test_record_cut_by_a_full_disk_is_not_kept(
    open_memory: Open, clock: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of which only a part was written would shift all that follow."""
    write = os.write
    with open_memory() as memory:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
            assert problem(memory, "u1", clock.now + 1) == ""
        assert not (tmp_path / "w1.signed_jobs").exists()


@pytest.mark.parametrize("damage", [b"", b"x", b"nfjobs 0", None])
def test_without_its_record_a_worker_trusts_no_earlier_signature(
    open_memory: Open, clock: SimpleNamespace, tmp_path: Path, damage: bytes | None
) -> None:
    """The file is gone, cut or of another version."""
    with open_memory() as memory:
        problem(memory, "u1", clock.now + 1)
    file = tmp_path / "w1.signed_jobs"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage + file.read_bytes()[len(damage) : -1 if len(damage) < 2 else None])
    clock.now += 5
    with open_memory() as memory:
        assert problem(memory, "u1", clock.now - 4) == UNKNOWN
        assert problem(memory, "u2", clock.now + 1) == ""


def test_after_the_machines_start_earlier_signatures_are_refused(open_memory: Open, clock: SimpleNamespace) -> None:
    """What a power failure has taken from the file can't be run again."""
    with open_memory() as memory:
        problem(memory, "u1", clock.now + 1)
    clock.now += 30
    with open_memory(NEXT_BOOT) as memory:
        assert problem(memory, "u2", clock.now - 1) == UNKNOWN
        assert problem(memory, "u3", clock.now + 1) == ""


def test_without_an_identity_each_start_is_taken_for_one_of_the_machine(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems other than Linux don't tell theirs."""
    monkeypatch.setattr(replay_memory, "_BOOT_ID", tmp_path / "nowhere")
    file = tmp_path / "w1.signed_jobs"
    with ReplayMemory(file, clock=lambda: clock.now) as memory:
        assert problem(memory, "u1", clock.now + 1) == ""
    clock.now += 5
    with ReplayMemory(file, clock=lambda: clock.now) as memory:
        assert problem(memory, "u2", clock.now - 1) == UNKNOWN
        assert problem(memory, "u3", clock.now + 1) == ""


def test_set_back_clock_revives_no_job(open_memory: Open, clock: SimpleNamespace) -> None:
    """Jobs are forgotten when their signatures have expired, and stay refused."""
    with open_memory(max_jobs=2) as memory:
        start = clock.now
        problem(memory, "u1", start + 1)
        problem(memory, "u2", start + 2)
        clock.now += 2 * WINDOW_SECONDS
        assert problem(memory, "u3", clock.now) == ""  # the first two are forgotten here
        clock.now = start + 3
        assert problem(memory, "u1", start + 1) == UNKNOWN
        assert problem(memory, "u2", start + 2) == UNKNOWN
        assert problem(memory, "u4", start + 3) == ""


def test_record_is_bounded(open_memory: Open, clock: SimpleNamespace) -> None:
    """Jobs beyond it are refused until the first signatures have expired."""
    with open_memory(max_jobs=3) as memory:
        assert [problem(memory, f"u{n}", clock.now + 1) for n in range(3)] == ["", "", ""]
        assert problem(memory, "u3", clock.now + 1) == f"3 signed jobs were run within {WINDOW_SECONDS} s"
        clock.now += WINDOW_SECONDS + 2
        assert problem(memory, "u4", clock.now) == ""


def test_file_does_not_grow_for_ever(open_memory: Open, clock: SimpleNamespace, tmp_path: Path) -> None:
    """Expired jobs leave it."""
    with open_memory() as memory:
        for number in range(5_000):
            clock.now += 1
            assert problem(memory, f"u{number}", clock.now) == ""
        assert (tmp_path / "w1.signed_jobs").stat().st_size < 50_000
        assert problem(memory, "u4999", clock.now) == REPEATED


def test_file_is_private(open_memory: Open, tmp_path: Path) -> None:
    """Like every file of an environment."""
    with open_memory():
        assert (tmp_path / "w1.signed_jobs").stat().st_mode & 0o777 == 0o600


def test_full_disk_stops_no_job(
    open_memory: Open,
    clock: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Memory holds what the file can't; the next start trusts no earlier signature."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_memory() as memory:
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(os, "write", fail)
            assert [problem(memory, uuid, clock.now + 1) for uuid in ("u1", "u2", "u1")] == ["", "", REPEATED]
        assert len(caplog.messages) == 1
        assert not (tmp_path / "w1.signed_jobs").exists()
    clock.now += 5
    with open_memory() as memory:
        assert problem(memory, "u1", clock.now - 4) == UNKNOWN
