"""The hash chain of an audit trail: format of the lines and the head, verification and recovery.

    NAME.jsonl   one JSON object a line, ASCII, keys in this order: seq (1, 2, 3 …), time, actor, operation, username,
                 tokens, count, expire, outcome, reason, in lines about refused requests suppressed, and last previous:
                 the SHA-256, in hexadecimal digits, of the line before without its newline; 64 zeros in the first line
    NAME.head    number (20 digits), blank, SHA-256 of the last line, newline

The chain detects altered lines, and missing lines at the beginning and in the middle; the head detects missing lines at
the end. A trail can be verified with `sha256sum`, without a key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

NO_LINE = "0" * hashlib.sha256().digest_size * 2
BLOCK_BYTES = 64 * 1024
MAX_LINES_AFTER_HEAD = 100_000  # that a power cut may keep from the head, with a margin; reading them takes 0.4 s

_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")
_LINE = re.compile(rb'\{"seq": ([1-9][0-9]{0,18}), .*"previous": "([0-9a-f]{64})"\}', re.DOTALL)


@dataclass(frozen=True)
class Head:
    """The number of a trail's last line, and that line's SHA-256."""

    seq: int = 0
    digest: str = NO_LINE

    def encode(self) -> bytes:
        """Return the content of the head file."""
        return b"%020d %s\n" % (self.seq, self.digest.encode())

    @classmethod
    def decode(cls, content: bytes) -> Head | None:
        """Return the head in a head file, None if it is invalid."""
        found = _HEAD.fullmatch(content)
        return cls(int(found[1]), found[2].decode()) if found else None

    def line(self, fields: Mapping[str, Any]) -> bytes:
        """Return the next line, without its newline."""
        return json.dumps({"seq": self.seq + 1, **fields, "previous": self.digest}).encode()

    def after(self, line: bytes) -> Head:
        """Return the head after this line (without its newline)."""
        return Head(self.seq + 1, digest_of(line))

    def links_to(self, line: bytes) -> bool:
        """Whether a line has the next number and the hash of this head; the fields between them are not checked."""
        # The next line or the head covers them: parsing JSON would take three times as long.
        return line.startswith(b'{"seq": %d, ' % (self.seq + 1)) and line.endswith(
            b', "previous": "%s"}' % self.digest.encode()
        )


def digest_of(line: bytes) -> str:
    """Return the SHA-256 of a line without its newline, in hexadecimal digits."""
    return hashlib.sha256(line).hexdigest()


def parse_link(line: bytes) -> tuple[int, str] | None:
    """Return a line's number and the hash of the line before it, None for a line that is not of a trail."""
    found = _LINE.fullmatch(line)
    return (int(found[1]), found[2].decode()) if found else None


def verify_chain(stream: IO[bytes], size: int, head: Head) -> str | None:
    """Read a trail from its beginning; return the first problem, a line that is altered or missing, else None.

    Only `size` bytes are read; later lines are ignored. `head` has the expected number and hash of the last line. Takes
    about 0.3 s for 100,000 lines.
    """
    at, left = Head(), size
    while left > 0:
        text = stream.readline(left)
        left -= len(text)
        line = text.removesuffix(b"\n")
        if not text.endswith(b"\n") or not at.links_to(line):
            return _describe_fault(at, line, stream.readline(left) if left > 0 else b"", head)
        at = at.after(line)
    if at.seq < head.seq:
        return _missing(at.seq + 1, head.seq)
    if at.seq > head.seq:
        return f"line {head.seq + 1} was added by another program"
    return None if at == head else f"line {at.seq} is altered"


def _describe_fault(at: Head, line: bytes, following: bytes, head: Head) -> str:
    """Describe the fault of a line that doesn't link to `at`; `following` is the next line, if there is one."""
    number = at.seq + 1
    seq, previous = parse_link(line) or (number, at.digest)
    if seq > number:
        return _missing(number, seq - 1)
    if seq < number:
        return f"line {number} is missing, in its place is one with number {seq}"
    if previous == NO_LINE and number > 1:
        return f"line {number} starts a new chain: lines before it may be missing"
    if previous == at.digest or number == 1:
        return f"line {number} is altered"
    after = parse_link(following.removesuffix(b"\n"))
    return _altered(at, line, previous, vouched=after[1] if after else head.digest)


def _altered(at: Head, line: bytes, previous: str, *, vouched: str) -> str:
    """Describe which of two lines is altered; `vouched` is the later one's hash, from the next line or the head."""
    if vouched == digest_of(line):
        return f"line {at.seq} is altered"
    if vouched == digest_of(line.replace(previous.encode(), at.digest.encode())):
        return f"line {at.seq + 1} is altered"
    return f"line {at.seq} or line {at.seq + 1} is altered"


def _missing(first: int, last: int) -> str:
    return f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"


def recover_head(lines: Iterator[bytes], head: Head | None) -> tuple[Head, list[str]]:
    """Return the head that the next line links to, and the problems that the end of the trail shows.

    Where lines are missing or altered, the next line links to the last line that the head file knew, or to none where
    that is unknown, so that verification always detects the gap. `lines` are the complete lines, last line first; no
    more are taken than needed. `head` is None if its file is missing or invalid.
    """
    newest = next(lines, None)
    last = Head() if newest is None else _head_of(newest)
    if last is None:
        return head or Head(), ["the last line is altered"]
    if head is None:
        problem = "the head file is missing or altered: lines at the end may be missing"
        return (Head(last.seq, NO_LINE), [problem]) if last.seq else (last, [])
    if last.seq < head.seq:
        return head, [_missing(last.seq + 1, head.seq)]
    if last.seq == head.seq:
        return head, [] if last == head else [f"line {last.seq} is altered"]
    # A crash or a power cut between a line and the head: the lines after the head have to link to it.
    newer = [newest or b"", *islice(lines, min(last.seq - head.seq, MAX_LINES_AFTER_HEAD) - 1)]
    at = head
    while newer and at.links_to(newer[-1]):
        at = at.after(newer.pop())
    if at == last:
        return last, []
    return Head(last.seq, NO_LINE), [f"the lines after line {head.seq} don't link to it"]


def _head_of(line: bytes) -> Head | None:
    place = parse_link(line)
    return Head(place[0], digest_of(line)) if place else None


def backwards(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield the lines of the first `size` bytes of a file, last line first, without newlines.

    The first one yielded is the text after the last newline: empty, unless a line is unfinished. The file is read
    lazily, in blocks.
    """
    parts: list[bytes] = []
    position = size
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        *head, tail = reversed(os.pread(descriptor, position - start, start).split(b"\n"))
        for part in head:
            parts.append(part)
            yield b"".join(reversed(parts))
            parts.clear()
        parts.append(tail)
        position = start
    yield b"".join(reversed(parts))
