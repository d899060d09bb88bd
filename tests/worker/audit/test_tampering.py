"""Changes of a trail's files by other programs are detected while the worker runs, at its next start, and later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.errors import AuditError
from nfcli.worker.audit.chain import Head
from nfcli.worker.audit.file import ChainedFile, verify_closed
from support.tokens.chained_files import refused

Open = Callable[[], ChainedFile]


def replace(path: Path, content: bytes) -> None:
    """Replace a file by another one."""
    other = path.with_name("other")
    other.write_bytes(content)
    other.chmod(0o600)
    other.replace(path)


def first_two(path: Path) -> bytes:
    """Return the first two lines of a file."""
    return b"".join(path.read_bytes().splitlines(keepends=True)[:2])


MOVED: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda path: path.unlink(), "can't be read: No such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "can't be read: .* must be a regular file"),
    "a link to itself": (
        lambda path: path.rename(path.with_name("moved")) and path.symlink_to("moved"),
        "can't be read: .* is a symbolic link",
    ),
    "a copy": (lambda path: replace(path, path.read_bytes()), "another file is in its place"),
    "an older copy": (lambda path: replace(path, first_two(path)), "lines 3 to 4 are missing"),
    "an empty file": (lambda path: replace(path, b""), "lines 1 to 4 are missing"),
    "cut": (lambda path: path.write_bytes(first_two(path)), "lines 3 to 4 are missing"),
    "emptied": (lambda path: path.write_bytes(b""), "lines 1 to 4 are missing"),
    "added to": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "line 5 is altered"),
}


@pytest.mark.parametrize(("move", "expected"), MOVED.values(), ids=MOVED)
def test_a_file_that_another_program_changed_takes_no_line(
    path: Path, file: ChainedFile, move: Callable[[Path], object], expected: str
) -> None:
    """Moved, replaced, truncated, appended to: lines are refused, the file is unchanged, and `verify` reports it."""
    move(path)
    there = path.read_bytes() if path.is_file() else None
    refused(file)
    refused(file)
    with pytest.raises(AuditError, match=expected):
        file.verify()
    assert (path.read_bytes() if path.is_file() else None) == there


STOPPED: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "file removed": (lambda path, _: path.unlink(), "lines 1 to 4 are missing", "lines 1 to 4 are missing"),
    "an older copy": (
        lambda path, _: replace(path, first_two(path)),
        "lines 3 to 4 are missing",
        "lines 3 to 4 are missing",
    ),
    "cut, and the head removed": (
        lambda path, head: (path.write_bytes(first_two(path)), head.unlink()),
        "the head file is missing or altered: lines at the end may be missing",
        "line 3 starts a new chain: lines before it may be missing",
    ),
    "head removed": (
        lambda _, head: head.unlink(),
        "the head file is missing or altered: lines at the end may be missing",
        "line 5 starts a new chain: lines before it may be missing",
    ),
    "head spoilt": (
        lambda _, head: head.write_bytes(b"x" * 500),
        "the head file is missing or altered: lines at the end may be missing",
        "line 5 starts a new chain: lines before it may be missing",
    ),
    "last line changed": (
        lambda path, _: path.write_bytes(path.read_bytes().replace(b"a3", b"a9")),
        "line 4 is altered",
        "line 4 is altered",
    ),
    "a line added": (
        lambda path, _: path.write_bytes(path.read_bytes() + b"nonsense\n"),
        "the last line is altered",
        "line 5 is altered",
    ),
}


@pytest.mark.parametrize("is_running", [False, True], ids=["while stopped", "before a kill"])
@pytest.mark.parametrize("case", STOPPED.values(), ids=STOPPED)
def test_a_changed_end_is_detected_at_the_next_start_and_later(
    path: Path,
    file: ChainedFile,
    open_file: Open,
    case: tuple[Callable[[Path, Path], object], str, str],
    is_running: bool,
) -> None:
    """Opening reports it, and so does `verify`, however many lines follow."""
    tamper, found, expected = case
    if not is_running:
        file.close()
    tamper(path, path.with_suffix(".head"))
    again = open_file()
    assert again.found == [found]
    for _ in range(2):
        for _ in range(3):
            again.append({"actor": "later"})
        with pytest.raises(AuditError, match=f"{path} was altered: {expected}; see man page tokens$"):
            again.verify()
        again.close()
        again = open_file()
        assert again.found == []


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        *((tamper, found) for tamper, found, _ in list(STOPPED.values())[1:]),
        (lambda path, _: path.write_bytes(path.read_bytes().replace(b'"a1"', b'"a9"')), "line 2 is altered"),
        (lambda path, head: (head.unlink(), path.write_bytes(b"")), None),
        (lambda path, _: path.write_bytes(path.read_bytes() + b'{"seq'), None),
        (lambda *_: None, None),
    ],
)
def test_a_trail_that_no_worker_has_open_is_verified(
    path: Path, file: ChainedFile, tamper: Callable[[Path, Path], object], message: str | None
) -> None:
    """Without a change to it: an unfinished line, as a crash leaves it, is valid and stays."""
    file.close()
    tamper(path, path.with_suffix(".head"))
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    if message is None:
        assert verify_closed(path).seq == len([line for line in path.read_bytes().split(b"\n") if line.endswith(b"}")])
    else:
        with pytest.raises(AuditError, match=f"^the audit trail {path} was altered: {message}; see man page tokens$"):
            verify_closed(path)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_a_trail_that_is_not_there_can_not_be_verified(path: Path, file: ChainedFile) -> None:
    """That is another problem than a trail that was altered."""
    file.close()
    path.unlink()
    with pytest.raises(AuditError, match=f"^the audit trail {path} can't be read: No such file or directory$"):
        verify_closed(path)


@pytest.mark.parametrize("with_head", [False, True], ids=["file alone", "with its head"])
def test_an_older_copy_planted_while_the_worker_ran_is_detected_after_its_end(
    path: Path,
    file: ChainedFile,
    open_file: Open,
    with_head: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker writes its own head when it ends, also over an older copy's head, and logs it."""
    head_path = path.with_suffix(".head")
    older, older_head = path.read_bytes(), head_path.read_bytes()
    file.append({"actor": "ann"})
    file.append({"actor": "bob"})
    replace(path, older)
    if with_head:
        replace(head_path, older_head)
    with pytest.raises(AuditError, match="lines 5 to 6 are missing"):
        file.verify()
    refused(file)
    file.close()
    assert [message.split(":")[0] for message in caplog.messages] == [
        f"the audit trail {path} was moved or altered, nothing changed"
    ]
    again = open_file()
    assert again.found == ["lines 5 to 6 are missing"]
    again.append({"actor": "carol"})
    with pytest.raises(AuditError, match="lines 5 to 6 are missing"):
        again.verify()


def test_an_invalid_head_of_an_empty_trail_is_replaced(head_path: Path, open_file: Open) -> None:
    """No line can be missing from an empty trail."""
    open_file().close()
    head_path.write_bytes(b"x" * 500)
    file = open_file()
    assert (file.found, file.verify()) == ([], Head())


@pytest.mark.parametrize("spoil", [Path.unlink, lambda head: replace(head, Head().encode())], ids=["gone", "older"])
def test_a_changed_head_is_detected(
    head_path: Path, file: ChainedFile, open_file: Open, spoil: Callable[[Path], object]
) -> None:
    """While the worker runs; it writes the head again when it ends."""
    spoil(head_path)
    with pytest.raises(AuditError, match=r"audit-w1\.head beside it is missing or altered"):
        file.verify()
    file.close()
    assert open_file().found == []
