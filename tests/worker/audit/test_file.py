"""The trail's files: lines are durable, or refused, and changes by other programs are detected."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import AuditError
from nfcli.worker.audit import file as audit_file
from nfcli.worker.audit.chain import NO_LINE, Head
from nfcli.worker.audit.file import ChainedFile
from support.tokens.chained_files import refused
from support.tokens.token_store import descriptor_of

Open = Callable[[], ChainedFile]


def actors(path: Path) -> list[str]:
    """Return the actors in the trail."""
    return [json.loads(line)["actor"] for line in path.read_bytes().splitlines()]


def test_both_files_are_private_and_agree(path: Path, head_path: Path, open_file: Open) -> None:
    """0600 whatever the umask; the head has the number of the last line and its hash."""
    umask = os.umask(0)
    try:
        file = open_file()
        assert (path.read_bytes(), head_path.read_bytes()) == (b"", Head().encode())
        file.append({"actor": "ann"})
    finally:
        os.umask(umask)
    assert path.read_bytes() == b'{"seq": 1, "actor": "ann", "previous": "%s"}\n' % NO_LINE.encode()
    assert head_path.read_bytes() == Head().after(path.read_bytes()[:-1]).encode()
    assert [oct(each.stat().st_mode) for each in (path, head_path)] == ["0o100600"] * 2
    assert file.verify() == Head().after(path.read_bytes()[:-1])


def test_a_line_is_synced_before_the_head_is_written(
    path: Path, head_path: Path, file: ChainedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the sync, the complete line is in the file, and the head doesn't include it yet."""
    seen: list[tuple[list[str], bytes]] = []
    before = head_path.read_bytes()
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: seen.append((actors(path), head_path.read_bytes())))
    file.append({"actor": "ann"})
    assert seen == [(["a0", "a1", "a2", "a3", "ann"], before)]


def test_observers_get_the_seconds_that_a_line_takes(path: Path, file: ChainedFile) -> None:
    """Also of one that can't be written; each observer gets them."""
    seen: list[float] = []
    file.on_append += [seen.append, seen.append]
    started = time.monotonic()
    file.append({"actor": "ann"})
    assert len(seen) == 2
    assert all(0 < each <= time.monotonic() - started for each in seen)
    path.rename(path.with_name("moved"))
    refused(file)
    assert len(seen) == 4


def test_a_reopened_file_continues_where_it_was(path: Path, file: ChainedFile, open_file: Open) -> None:
    """After a stop, and after a process that was killed."""
    file.close()
    again = open_file()
    again.append({"actor": "ann"})
    killed_and_again = open_file()
    killed_and_again.append({"actor": "bob"})
    assert (again.found, killed_and_again.found) == ([], [])
    assert actors(path) == ["a0", "a1", "a2", "a3", "ann", "bob"]
    assert killed_and_again.verify().seq == 6


def test_lines_after_the_head_are_valid(
    head_path: Path, file: ChainedFile, open_file: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash or a power cut may keep the head from being written; catching up needs no free space."""
    before = head_path.read_bytes()
    file.append({"actor": "ann"})
    file.append({"actor": "bob"})
    head_path.write_bytes(before)
    monkeypatch.setattr(audit_file, "write_private", lambda *_: pytest.fail("a full disk would stop the start"))
    again = open_file()
    monkeypatch.undo()
    assert (again.found, again.verify().seq) == ([], 6)
    again.append({"actor": "carol"})
    assert again.verify().seq == 7


@pytest.mark.parametrize("rest", [b"{", b'{"seq": 5, "actor": "ann", "prev', b"\0" * 100, b"x" * 100_000])
def test_an_unfinished_line_is_removed_and_the_chain_continues(
    path: Path, file: ChainedFile, open_file: Open, rest: bytes
) -> None:
    """A crash during a write leaves it; its change was never made."""
    with path.open("ab") as stream:
        stream.write(rest)
    again = open_file()
    assert again.found == [f"an unfinished line was removed (bytes: {len(rest)})"]
    again.append({"actor": "ann"})
    assert actors(path) == ["a0", "a1", "a2", "a3", "ann"]
    assert again.verify().seq == 5
    del file


def test_a_file_that_was_moved_back_takes_lines_again(path: Path, file: ChainedFile) -> None:
    """The same file, not a copy."""
    moved = path.rename(path.with_name("moved"))
    refused(file)
    moved.rename(path)
    file.append({"actor": "ann"})
    assert file.verify().seq == 5


@contextmanager
def in_place_of(descriptor: int, device: str) -> Iterator[None]:
    """Redirect a descriptor to a device."""
    kept, other = os.dup(descriptor), os.open(device, os.O_RDWR)
    os.dup2(other, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(other)


@contextmanager
def room_for(path: Path, more_bytes: int) -> Iterator[None]:
    """Limit this process's files to the size of one plus some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_takes_no_part_of_a_line(path: Path, file: ChainedFile) -> None:
    """Whether nothing fits or a part, which is removed; with free space again lines follow the last one."""
    before = path.read_bytes()
    with in_place_of(descriptor_of(path), "/dev/full"):
        refused(file, match=r"can't be written \(No space left on device\), nothing changed: make room on its disk")
    for more_bytes in (0, 1, 50):
        with room_for(path, more_bytes):
            refused(file, match=r"can't be written \(\w[^)]*\), nothing changed: make room")
        assert path.read_bytes() == before
    file.append({"actor": "ann"})
    assert actors(path) == ["a0", "a1", "a2", "a3", "ann"]
    assert file.verify().seq == 5


def test_a_line_whose_sync_fails_is_removed(path: Path, file: ChainedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sync it is unknown what a power cut would leave."""
    before = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        refused(file, match=r"can't be written \(Input/output error\)")
        assert path.read_bytes() == before
        patch.setattr(os, "ftruncate", lambda *_: fail(0))
        refused(file, match=r"can't be written \(Input/output error\)")
        assert len(path.read_bytes()) > len(before)
    refused(file)  # the line that couldn't be taken back is noticed


def test_a_head_that_can_t_be_written_is_logged(
    path: Path, file: ChainedFile, open_file: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The line is in the file, and a line after the head is valid."""
    with in_place_of(descriptor_of(path.with_suffix(".head")), "/dev/full"):
        file.append({"actor": "ann"})
    assert caplog.messages == [f"the head of the audit trail {path} can't be written: No space left on device"]
    assert open_file().found == []


def test_a_disk_that_can_not_be_read_is_an_error_in_one_line(
    path: Path, file: ChainedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported neither as a fault of the trail nor as an internal error."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(audit_file, "verify_chain", fail)
    monkeypatch.setattr(os, "pread", fail)
    for read in (file.verify, lambda: next(file.lines_backwards())):
        with pytest.raises(AuditError) as caught:
            read()
        assert str(caught.value) == f"the audit trail {path} can't be read: Input/output error"


def test_a_closed_trail_takes_no_line(path: Path, file: ChainedFile, caplog: pytest.LogCaptureFixture) -> None:
    """Closing twice is safe; a missing folder is logged."""
    file.close()
    file.close()
    refused(file, match="^the audit trail is closed, nothing changed$")
    other = ChainedFile(path)
    shutil.rmtree(path.parent)
    other.close()
    assert caplog.messages == [f"the head of the audit trail {path} can't be written: No such file or directory"]


def test_threads_write_complete_lines_while_others_verify(path: Path, file: ChainedFile) -> None:
    """Eight threads write; each line is there once, and no verification meets half a line."""
    heads: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: [file.append({"actor": f"t{n}-{i}"}) for i in range(25)]) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        heads.append(file.verify().seq)
        assert next(file.lines_backwards()).endswith(b'"}')
    for thread in threads:
        thread.join()
    assert file.verify().seq == 204
    assert heads == sorted(heads)
    assert sorted(actors(path)[4:]) == sorted(f"t{n}-{i}" for n in range(8) for i in range(25))


def test_the_file_of_the_first_version_is_moved_aside(path: Path, open_file: Open) -> None:
    """Its lines have no chain; it is kept next to the new one, under the first free number."""
    old = b'{"time": "2026-05-31T10:12:02.117+00:00", "client": "KEY", "task": "bearer_token_delete"}\n'
    for number in (1, 2):
        path.write_bytes(old)
        path.chmod(0o600)
        open_file().append({"actor": "ann"})
        assert path.with_name(f"audit-w1.jsonl.{number}").read_bytes() == old
        assert actors(path) == ["ann"]
        path.with_suffix(".head").unlink()


def spoilt(path: Path, action: str) -> None:
    """Put something in the way."""
    if action == "a folder":
        path.mkdir()
    elif action == "a link":
        path.symlink_to("elsewhere")
    else:
        path.touch(0o644)
        path.chmod(0o644)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("a folder", "{path} must be a regular file: move away what is there"),
        ("a link", "{path} is a symbolic link: replace it with what it points to"),
        ("open to others", "{path} has mode 0644 and is open to other users: run chmod 600 {path}"),
    ],
)
def test_a_file_that_is_not_private_is_not_opened(path: Path, open_file: Open, action: str, reason: str) -> None:
    """The message names the remedy."""
    spoilt(path, action)
    with pytest.raises(AuditError) as caught:
        open_file()
    assert str(caught.value) == f"the audit trail can't be opened: {reason.format(path=path)}"


def test_a_folder_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    """The environment creates the folder before."""
    path = tmp_path / "missing" / "audit-w1.jsonl"
    with pytest.raises(AuditError) as caught:
        ChainedFile(path)
    assert str(caught.value) == f"the audit trail {path} can't be opened: No such file or directory"


def test_opening_reads_the_end_only(path: Path, file: ChainedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trail of a hundred megabytes must not delay a start."""
    for number in range(400):
        file.append({"actor": f"a{number}", "filler": "x" * 1_000})
    file.close()
    read: list[Any] = []
    real = os.pread

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        read.append(count)
        return real(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    ChainedFile(path).close()
    assert sum(read) <= 64 * 1024 < path.stat().st_size
