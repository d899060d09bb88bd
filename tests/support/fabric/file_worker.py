"""A file service at a fake broker whose workers do what a test tells them to with one file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

from nfcli.models.protocol.frames import Command
from support.fabric.fake_broker import POST, Ask, FakeBroker, Frames, done, frames, result

STREAM, PUT = Command.STREAM, Command.PUT
FILES = "filesharing"


class FileWorkers:
    """Answers for workers of the service: `content` is what each streams, `details` what it says of it.

    `stalls_at`: the offset from which on nothing is sent. `dead`: workers that send nothing after their first part, and
    are unknown to the broker then. `failed`: workers that fail after their first part. `alter` changes a part before it
    is sent. `requested` are the offsets of all PUTs.
    """

    def __init__(self, broker: FakeBroker, content: bytes) -> None:
        self.content = content
        self.details: dict[str, Any] = {
            "size_bytes": len(content),
            "md5hash": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "exists": True,
        }
        self.stalls_at: float = math.inf
        self.failed: set[str] = set()
        self.dead: set[str] = set()
        self.alter: Callable[[bytes], bytes] = lambda part: part
        self.requested: list[int] = []
        self.fetched_from: list[str] = []
        self._broker = broker
        self._chunk_bytes = 0
        self._post: Ask | None = None
        broker.on_ask = self._answer

    def _answer(self, ask: Ask) -> list[Frames] | None:
        if ask.command == PUT:
            self.requested.append(ask.data["offset"])
            return self._part(ask.data["offset"])
        if ask.command != POST:
            return [self._broker.refused(ask)] if self.dead.intersection(ask.names) else []
        dispatched = self._broker.dispatched(ask, ask.names)
        if ask.data["task"] == "file_details":
            return [dispatched, done(ask, {name: result(self.details) for name in ask.names})]
        (name,) = ask.names
        self.fetched_from.append(name)
        self._post, self._chunk_bytes = ask, ask.data["kwargs"]["chunk_size"]
        return [dispatched, *self._part(0)]

    def _part(self, offset: int) -> list[Frames]:
        assert self._post is not None
        (name,) = self._post.names
        if offset >= self.stalls_at or (offset and name in self.dead):
            return []
        part = self.alter(self.content[offset : offset + self._chunk_bytes])
        replies = [frames(STREAM, self._post.uuid, "200", part, FILES)] if part else []
        if name in self.failed:
            broken = {"result": None, "failed": True, "errors": ["the disk is broken"]}
            return [*replies, done(self._post, {name: broken})]
        if offset + self._chunk_bytes >= len(self.content):
            replies.append(done(self._post, {name: result(True)}))
        return replies
