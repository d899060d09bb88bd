"""The hash chain detects every change, and names the line."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.worker.audit import chain as audit_chain
from nfcli.worker.audit.chain import NO_LINE, Head, backwards, recover_head, verify_chain

COUNT = 6


def chain(count: int = COUNT, start: Head | None = None) -> list[bytes]:
    """Return the lines of a trail, without newlines."""
    head, lines = start or Head(), []
    for number in range(count):
        lines.append(head.line({"actor": f"client-{number}", "tokens": ["0123456789ab"]}))
        head = head.after(lines[-1])
    return lines


def head_of(lines: list[bytes]) -> Head:
    """Return the head of an intact trail."""
    return list(accumulate(lines, Head.after, initial=Head()))[-1]


LINES = chain()
HEAD = head_of(LINES)


def fault(lines: list[bytes], head: Head = HEAD) -> str | None:
    """Verify a file of these lines."""
    text = b"".join(line + b"\n" for line in lines)
    return verify_chain(io.BytesIO(text), len(text), head)


def test_each_line_carries_its_number_and_the_hash_of_the_one_before() -> None:
    """The hash is the one of `sha256sum`; in the first line it is zeros."""
    places = [(json.loads(line)["seq"], json.loads(line)["previous"]) for line in LINES]
    hashes = ["0" * 64, *(hashlib.sha256(line).hexdigest() for line in LINES)]
    assert places == list(zip(range(1, COUNT + 1), hashes, strict=False))
    assert (HEAD.seq, HEAD.digest) == (COUNT, hashes[-1])
    assert json.loads(LINES[0]) == {
        "seq": 1,
        "actor": "client-0",
        "tokens": ["0123456789ab"],
        "previous": NO_LINE,
    }
    assert list(json.loads(LINES[0])) == ["seq", "actor", "tokens", "previous"]


def test_an_unchanged_trail_is_valid() -> None:
    """Any length is valid, and text after the given size is ignored."""
    assert [fault(LINES[:count], head_of(LINES[:count])) for count in range(COUNT + 1)] == [None] * (COUNT + 1)
    text = b"".join(line + b"\n" for line in LINES)
    assert verify_chain(io.BytesIO(text + b"later"), len(text), HEAD) is None


def altered(number: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return an edit of one line, counted from 1."""
    assert old in LINES[number - 1]
    return lambda lines: [line.replace(old, new) if line == LINES[number - 1] else line for line in lines]


FORGED = Head(3, head_of(LINES[:3]).digest).line({"actor": "mallory"})
TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "first line changed": (altered(1, b"client-0", b"client-9"), "line 1 is altered"),
    "a middle line changed": (altered(4, b"client-3", b"client-9"), "line 4 is altered"),
    "last line changed": (altered(6, b"client-5", b"client-9"), "line 6 is altered"),
    "number changed": (altered(4, b'"seq": 4', b'"seq": 7'), "lines 4 to 6 are missing"),
    "first hash changed": (altered(1, b"0" * 64, b"1" * 64), "line 1 is altered"),
    "hash changed": (altered(4, head_of(LINES[:3]).digest.encode(), b"f" * 64), "line 4 is altered"),
    "hash shortened": (altered(4, b'"previous": "', b'"previous": '), "line 4 is altered"),
    "line emptied": (lambda lines: [*lines[:3], b"", *lines[4:]], "line 4 is altered"),
    "first line removed": (lambda lines: lines[1:], "line 1 is missing"),
    "first lines removed": (lambda lines: lines[3:], "lines 1 to 3 are missing"),
    "a middle line removed": (lambda lines: [*lines[:3], *lines[4:]], "line 4 is missing"),
    "last line removed": (lambda lines: lines[:-1], "line 6 is missing"),
    "last lines removed": (lambda lines: lines[:2], "lines 3 to 6 are missing"),
    "all removed": (lambda _lines: [], "lines 1 to 6 are missing"),
    "two swapped": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "line 3 is missing"),
    "first and last swapped": (lambda lines: [lines[-1], *lines[1:-1], lines[0]], "lines 1 to 5 are missing"),
    "a line doubled": (
        lambda lines: [*lines[:3], *lines[2:]],
        "line 4 is missing, in its place is one with number 3",
    ),
    "last line doubled": (lambda lines: [*lines, lines[-1]], "line 7 is missing, in its place is one with number 6"),
    "a line put in": (
        lambda lines: [*lines[:3], FORGED, *lines[3:]],
        "line 5 is missing, in its place is one with number 4",
    ),
    "a line replaced": (lambda lines: [*lines[:3], FORGED, *lines[4:]], "line 4 is altered"),
    "a line added": (lambda lines: [*lines, HEAD.line({"actor": "mallory"})], "line 7 was added by another program"),
    "all created again": (lambda _lines: chain(COUNT + 1)[1:], "line 1 is missing"),
    "another chain": (
        lambda lines: [line.replace(b"client", b"nobody") for line in lines],
        "line 1 or line 2 is altered",
    ),
    "restarted in the middle": (
        lambda lines: [*lines[:3], *chain(3, Head(3, NO_LINE))],
        "line 4 starts a new chain: lines before it may be missing",
    ),
}


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED.values(), ids=TAMPERED)
def test_the_first_line_that_was_tampered_with_is_named(
    tamper: Callable[[list[bytes]], list[bytes]], expected: str
) -> None:
    """Altered, missing, moved and inserted lines are distinguished."""
    assert fault(tamper(LINES)) == expected


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_the_number_of_a_line_is_the_right_one_everywhere(number: int) -> None:
    """Counted from 1: lines that were altered, removed, added, doubled, or that begin a new chain."""
    before, line, after = LINES[: number - 1], LINES[number - 1], LINES[number:]
    hashed = f'"previous": "{head_of(before).digest}"'.encode()
    assert fault([*before, line.replace(b"client", b"nobody"), *after]) == f"line {number} is altered"
    assert fault([*before, line.replace(hashed, b'"previous": "' + b"f" * 64 + b'"'), *after]) == (
        f"line {number} is altered"
    )
    assert fault([*before, *after]) == f"line {number} is missing"
    assert fault([*before, line, *chain(1, Head(number, "0" * 64))], head_of(LINES[: number + 1])) == (
        f"line {number + 1} starts a new chain: lines before it may be missing"
    )
    assert fault([*before, line], head_of(before)) == f"line {number} was added by another program"
    assert fault([*before, line, line, *after]) == (
        f"line {number + 1} is missing, in its place is one with number {number}"
    )


def test_an_unfinished_line_is_a_fault() -> None:
    """The worker removes such a line when it opens the file; a running worker leaves no such line."""
    text = b"".join(line + b"\n" for line in LINES)
    assert verify_chain(io.BytesIO(text[:-1]), len(text) - 1, HEAD) == "line 6 is altered"
    assert verify_chain(io.BytesIO(text + b"{"), len(text) + 1, HEAD) == "line 7 is altered"


edits = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, 10_000), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 10_000), st.integers(1, 400)),
    st.tuples(st.just("insert"), st.integers(0, 10_000), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("copy"), st.integers(0, COUNT - 1), st.integers(0, COUNT)),
    st.tuples(st.just("move"), st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)),
)


def edited(text: bytes, edit: tuple[str, int, object]) -> bytes:
    """Apply one edit to a file's content."""
    kind, at, what = edit
    lines = text.splitlines(keepends=True)
    if kind in {"copy", "move"} and lines:
        assert isinstance(what, int)
        line = lines[at % len(lines)]
        if kind == "move":
            lines.remove(line)
        lines.insert(what, line)
        return b"".join(lines)
    at %= max(1, len(text))
    if kind == "byte" and isinstance(what, int):
        return text[:at] + bytes([what]) + text[at + 1 :]
    if kind == "cut" and isinstance(what, int):
        return text[:at] + text[at + what :]
    return text[:at] + what + text[at:] if isinstance(what, bytes) else text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(edits, min_size=1, max_size=4))
def test_every_edit_of_a_trail_is_detected(edits: list[tuple[str, int, object]]) -> None:
    """Bytes are changed, removed, inserted, copied, moved: there is a fault exactly if the content differs."""
    original = text = b"".join(line + b"\n" for line in LINES)
    for edit in edits:
        text = edited(text, edit)
    assert (verify_chain(io.BytesIO(text), len(text), HEAD) is None) == (text == original)


def newest_first(lines: list[bytes]) -> Iterator[bytes]:
    """Return lines in the order in which a trail's end is read."""
    return iter(lines[::-1])


def test_a_trail_continues_after_its_last_line() -> None:
    """Also where a crash kept the head from being written, and from an empty trail."""
    assert recover_head(newest_first(LINES), HEAD) == (HEAD, [])
    for count in range(COUNT):
        assert recover_head(newest_first(LINES), head_of(LINES[:count])) == (HEAD, [])
    assert recover_head(iter([]), Head()) == (Head(), [])
    assert recover_head(iter([]), None) == (Head(), [])


def test_of_an_intact_trail_only_the_last_line_is_read() -> None:
    """The start takes as long with a hundred megabytes as with one."""
    lines = newest_first(LINES)
    recover_head(lines, HEAD)
    assert next(lines) == LINES[-2]


BROKEN_ENDS: dict[str, tuple[list[bytes], Head | None, Head, str]] = {
    "cut": (LINES[:2], HEAD, HEAD, "lines 3 to 6 are missing"),
    "empty": ([], HEAD, HEAD, "lines 1 to 6 are missing"),
    "altered": (TAMPERED["last line changed"][0](LINES), HEAD, HEAD, "line 6 is altered"),
    "nonsense": ([*LINES, b"nonsense"], HEAD, HEAD, "the last line is altered"),
    "nonsense alone": ([b"nonsense"], None, Head(), "the last line is altered"),
    "no head": (
        LINES,
        None,
        Head(6, NO_LINE),
        "the head file is missing or altered: lines at the end may be missing",
    ),
    "altered behind the head": (
        TAMPERED["a middle line changed"][0](LINES),
        head_of(LINES[:2]),
        Head(6, NO_LINE),
        "the lines after line 2 don't link to it",
    ),
    "a line missing behind the head": (
        [*LINES[:3], *LINES[4:]],
        head_of(LINES[:2]),
        Head(6, NO_LINE),
        "the lines after line 2 don't link to it",
    ),
}


@pytest.mark.parametrize(("lines", "known", "follows", "problem"), BROKEN_ENDS.values(), ids=BROKEN_ENDS)
def test_a_changed_end_is_detected_for_ever(
    lines: list[bytes], known: Head | None, follows: Head, problem: str
) -> None:
    """The next line links to the last known one, or to none, so that later lines don't hide the gap."""
    head, problems = recover_head(newest_first(lines), known)
    assert (head, problems) == (follows, [problem])
    later = chain(2, head)
    assert fault([*lines, *later], head.after(later[0]).after(later[1])) is not None


def test_the_lines_after_an_old_head_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted old head must not slow the start down."""
    monkeypatch.setattr(audit_chain, "MAX_LINES_AFTER_HEAD", 3)
    assert recover_head(newest_first(LINES), head_of(LINES[:3])) == (HEAD, [])
    head, problems = recover_head(newest_first(LINES), head_of(LINES[:2]))
    assert (head, problems) == (Head(6, NO_LINE), ["the lines after line 2 don't link to it"])


def test_heads_are_decoded_as_they_are_encoded() -> None:
    """All have the same length, so that one write replaces another; other content is invalid."""
    assert Head.decode(HEAD.encode()) == HEAD
    assert {len(head.encode()) for head in (Head(), HEAD, Head(10**18, "f" * 64))} == {86}
    for content in (b"", HEAD.encode()[:-1], HEAD.encode() + b"\n", b"0" * 86):
        assert Head.decode(content) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=50).map(lambda part: part.replace(b"\n", b"")), max_size=12), st.integers(1, 70))
def test_reading_backwards_yields_every_line_once(lines: list[bytes], block_bytes: int) -> None:
    """For any block size; the text after the last newline comes first."""
    text = b"\n".join(lines)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile(buffering=0) as stream:
        patch.setattr(audit_chain, "BLOCK_BYTES", block_bytes)
        stream.write(text)
        assert list(backwards(stream.fileno(), len(text))) == (lines or [b""])[::-1]


def test_reading_backwards_stops_at_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    """Another program truncates it meanwhile: the rest is read."""
    file = tmp_path / "lines"
    file.write_bytes(b"a\nb\n")
    with file.open("rb") as stream:
        assert list(backwards(stream.fileno(), 10)) == [b"", b"b", b"a"]
