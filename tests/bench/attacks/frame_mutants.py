"""Invalid messages: captured ones, changed, and random ones; the same seed yields the same stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks.victim import MARK

CAPTURED = Path(__file__).parents[2] / "models" / "protocol" / "captured" / "nfp_frames.jsonl"
HEADERS = (b"NFPC01", b"NFPW01", b"NFPB01", b"NFPC02", b"nfpc01", b"")
COMMANDS = (*(b"0x%02d" % number for number in range(12)), b"\x04", b"0x04\0", b"0X04", b"0x0a", b"", b"4")
SERVICES = (b"all", b"", b"fastmc", b"FASTMCP", b"mmi.service.broker", b"sid.service.broker", b"fastmcp\0", b"\xff")
TARGETS = (b"all", b"any", b"", b"[", b"[]", b"[1]", b'["x"]', b'["fastmcp-worker-1",1]', b"{}", b"null", b"\xff", b"*")
UUIDS = (b"", b"\0", b"\xff" * 16, b"u" * 128, b"u" * 129, b"\xe2\x80\xae", b"a b\r\n", b"\xed\xa0\x80")
STATUSES = (b"", b"000", b"99999999", b"999999999", b"2OO", b"\xff", b"-1", b"404", b"500", b"417", b"200")
DATA = (
    *(
        b"",
        b"null",
        b"true",
        b"[]",
        b'""',
        b"0",
        b"{",
        b"{}",
        b"[{}]",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"\0",
        b"\xff\xfe",
    ),
    *(
        b"\xef\xbb\xbf{}",
        b"[" * 5_000,
        b'{"task":' * 3_000,
        b"{}" * 100,
        b'{"task":"\\ud800"}',
        b'{"task":"\xed\xa0\x80"}',
    ),
    *(b'{"task":"echo","task":"echo"}', b'{"task":"echo","kwargs":{"\\ud800":1}}', b'{"task":"echo","timeout":-1}'),
    *(
        b'{"task":"echo","timeout":1e999}',
        b'{"task":"echo","kwargs":{"k":NaN}}',
        b'{"task":"echo","kwargs":{"k":1e999}}',
    ),
    *(b'{"task":"echo","kwargs":{"k":' + b"[" * 400 + b"]" * 400 + b"}}", b"9" * 5_000, b"[" + b"9" * 4_000 + b"]"),
    *(b'{"task":"echo","kwargs":{"k":' + b"9" * 4_000 + b"}}", b'{"task":"' + b"x" * 70_000 + b'"}'),
    *(b'{"task":"echo","kwargs":{"raise_error":"\\ud800\\u0000"}}', b'{"task":"get_tools","kwargs":{"name":"[*["}}'),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, 2**53, 10**30, 10**400, 0.1, "", "0", "\0", "\ud800", "é" * 300, "x" * 20_000),
    *(
        [],
        {},
        [[]],
        [None] * 100,
        {"": {}},
        "fastmcp-worker-1",
        "true",
        "NaN",
        "../../etc",
        "__class__",
        "%s{0}",
        "\u202e",
    ),
)
TOKENS = 400
LARGEST_FRAME_BYTES = 1024 * 1024 - 33
"""The largest accepted frame: CURVE wraps a frame in 33 bytes before its length is held to a megabyte."""

Frames = list[bytes]


def captured(sender: str, receiver: str) -> list[Frames]:
    """Return the messages that were captured from one kind of party to another; nothing in them waits."""
    found = []
    for line in CAPTURED.read_text().replace('\\"sleep\\"', '\\"slept\\"').splitlines():
        record = json.loads(line)
        if (record["from"], record["to"]) == (sender, receiver):
            found.append([f["utf8"].encode() if "utf8" in f else bytes.fromhex(f["hex"]) for f in record["frames"]])
    return found


class FrameMutants:
    """An endless stream of messages as a DEALER sends them, each with a uuid that is its own or was spoilt.

    Jobs that stay intact store some of 400 tokens, or delete tokens and users that don't exist.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  the same messages again for the same seed
        self._jobs = [frames for frames in captured("client", "broker") if len(frames) == 7]
        self._foreign = [
            *(captured("broker", "client") + captured("broker", "worker")),
            *(captured("worker", "broker") + captured("worker", "broker")[:1] * 20),
            *([b"", b"NFPW01", b"0x01"], [b"", b"NFPW01"], [b""], [b"", b"NFPC01", b"0x04"]),
        ]
        self._count = 0
        self._last_uuid = b""
        self._ways: list[tuple[Callable[[], Frames], int]] = [
            *((self._spoilt_job, 50), (self._twisted_job, 20), (self._foreign_message, 10), (self._noise, 12)),
            *((self._job, 7), (self._repeated_job, 1)),
        ]
        self._spoilers = [
            *(self._flip, self._flip, self._truncate, self._empty, self._grow, self._insert, self._remove),
            *(self._duplicate, self._swap, self._replace_header, self._replace_command, self._replace_service),
            *(self._replace_target, self._replace_uuid, self._replace_data, self._cut_message, self._noise_frame),
        ]

    def next(self) -> Frames:
        """Return the next message; it has at least one frame."""
        (way,) = self.chance.choices([way for way, _ in self._ways], [weight for _, weight in self._ways])
        return way()

    def spoil(self, frames: Frames) -> Frames:
        """Change a message in one to three ways."""
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            self.chance.choice(self._spoilers)(frames)
        return frames or [b""]

    def twist(self, data: bytes) -> bytes:
        """Change something within a JSON text, or the text itself."""
        chance = self.chance
        try:
            value = json.loads(data)
        except ValueError:
            return chance.choice(DATA)
        twisted = json.dumps(self._twisted(value)).encode()
        kind = chance.randrange(12)
        if kind == 0:  # the same key twice
            twisted = twisted.replace(b"{", b'{"task":%s,' % json.dumps(chance.choice(VALUES)).encode(), 1)
        elif kind == 1:
            twisted = b"[" * (depth := chance.choice((1, 50, 900, 1_100))) + twisted + b"]" * depth
        elif kind == 2:
            twisted = twisted.replace(b'"', b"'") if chance.random() < 0.5 else twisted.replace(b":", b"=")
        elif kind == 3:
            index = chance.randrange(len(twisted) + 1)
            twisted = (
                twisted[:index] + chance.choice((b"\xff", b"\xc3", b"\xed\xb0\x80", b"\0", b"\\")) + twisted[index:]
            )
        return twisted

    def _twisted(self, value: Any) -> Any:
        """Replace one part of a value, chosen at random."""
        chance = self.chance
        if isinstance(value, dict) and value and chance.random() < 0.85:
            key = chance.choice(list(value))
            kind = chance.random()
            if kind < 0.1:
                return {other: part for other, part in value.items() if other != key}
            if kind < 0.2:
                return {**value, str(chance.choice(VALUES))[:300]: chance.choice(VALUES)}
            return {**value, key: self._twisted(value[key])}
        if isinstance(value, list) and value and chance.random() < 0.8:
            index = chance.randrange(len(value))
            return [*value[:index], self._twisted(value[index]), *value[index + 1 :]]
        return chance.choice(VALUES)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _job(self) -> Frames:
        frames = list(self.chance.choice(self._jobs))
        self._count += 1
        frames[5] = self._last_uuid = b"%016x" % self._count
        number = b"%d" % self.chance.randrange(TOKENS)
        mark = MARK.encode()
        if b"bearer_token_store" in frames[6]:
            frames[6] = frames[6].replace(b"tok-", mark + b"-" + number + b"-").replace(b"alice", b"user-" + number)
        else:
            frames[6] = frames[6].replace(b"tok-", mark + b"-nobodys-").replace(b"alice", b"nobody")
        return frames

    def _repeated_job(self) -> Frames:
        uuid, frames = self._last_uuid, self._job()
        frames[5] = uuid
        return frames

    def _spoilt_job(self) -> Frames:
        return self.spoil(self._job())

    def _twisted_job(self) -> Frames:
        frames = self._job()
        frames[6] = self.twist(frames[6])
        return frames

    def _foreign_message(self) -> Frames:
        frames = list(self.chance.choice(self._foreign))
        if self.chance.random() < 0.3 and len(frames) > 1:
            frames[1] = b"NFPC01"
        return frames if self.chance.random() < 0.5 else self.spoil(frames)

    def _noise(self) -> Frames:
        chance = self.chance
        count = 3_000 if chance.random() < 0.002 else chance.choice((1, 1, 2, 3, 5, 6, 7, 7, 8, 12, 40))
        frames = [chance.randbytes(chance.choice((0, 0, 1, 4, 6, 16, 100))) for _ in range(count)]
        if count > 2 and chance.random() < 0.5:
            frames[1:3] = [b"NFPC01", chance.choice(COMMANDS)]
        return frames

    # -- ways to spoil a message -------------------------------------------------------------------------------------

    def _random_index(self, frames: Frames) -> int:
        return self.chance.randrange(len(frames)) if frames else 0

    def _flip(self, frames: Frames) -> None:
        index = self._random_index(frames)
        if frames and frames[index]:
            changed = bytearray(frames[index])
            for _ in range(self.chance.choice((1, 1, 1, 2, 8))):
                changed[self.chance.randrange(len(changed))] ^= 1 << self.chance.randrange(8)
            frames[index] = bytes(changed)

    def _truncate(self, frames: Frames) -> None:
        if frames:
            index = self._random_index(frames)
            frames[index] = frames[index][: self.chance.randrange(len(frames[index]) + 1)]

    def _empty(self, frames: Frames) -> None:
        if frames:
            frames[self._random_index(frames)] = b""

    def _grow(self, frames: Frames) -> None:
        """Blow a frame up; now and then to the largest size that is accepted."""
        if frames:
            index = self._random_index(frames)
            size = (
                LARGEST_FRAME_BYTES
                if self.chance.random() < 0.01
                else self.chance.choice((130, 257, 300, 4_000, 60_000))
            )
            frames[index] = (frames[index] or b"x") * (size // max(1, len(frames[index])) + 1)
            frames[index] = frames[index][:size]

    def _insert(self, frames: Frames) -> None:
        frames.insert(self._random_index(frames), self.chance.choice((b"", b"x", b"NFPC01", self.chance.randbytes(9))))

    def _remove(self, frames: Frames) -> None:
        if frames:
            del frames[self._random_index(frames)]

    def _duplicate(self, frames: Frames) -> None:
        if frames:
            index = self._random_index(frames)
            frames.insert(index, frames[index])

    def _swap(self, frames: Frames) -> None:
        if frames:
            one, other = self._random_index(frames), self._random_index(frames)
            frames[one], frames[other] = frames[other], frames[one]

    def _cut_message(self, frames: Frames) -> None:
        del frames[self._random_index(frames) :]

    def _noise_frame(self, frames: Frames) -> None:
        if frames:
            frames[self._random_index(frames)] = self.chance.randbytes(self.chance.randrange(40))

    def _put(self, frames: Frames, index: int, values: tuple[bytes, ...]) -> None:
        if len(frames) > index:
            frames[index] = self.chance.choice(values)

    def _replace_header(self, frames: Frames) -> None:
        self._put(frames, 1, HEADERS)

    def _replace_command(self, frames: Frames) -> None:
        self._put(frames, 2, COMMANDS)

    def _replace_service(self, frames: Frames) -> None:
        self._put(frames, 3, SERVICES)

    def _replace_target(self, frames: Frames) -> None:
        self._put(frames, 4, TARGETS)

    def _replace_uuid(self, frames: Frames) -> None:
        self._put(frames, 5, UUIDS)

    def _replace_data(self, frames: Frames) -> None:
        self._put(frames, 6, DATA)
