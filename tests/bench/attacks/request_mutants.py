"""Invalid HTTP requests; the same seed yields the same stream."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from attacks.frame_mutants import FrameMutants
from attacks.request_parts import (
    AUTHORIZATIONS,
    BODIES,
    CHUNKED,
    CODINGS,
    DOCUMENTS,
    ERAS,
    GOOD,
    HOSTS,
    LENGTHS,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MESSAGES,
    META,
    METHODS,
    ORIGINS,
    OTHER_HEADERS,
    PREFACES,
    TARGETS,
    TRAILERS,
    VERSIONS,
)
from attacks.victim import GOOD_TOKEN

HOST = b"127.0.0.1"
_GOOD_LINE = re.compile(rb"(?im)^authorization[ \t]*:[ \t]*bearer +%s[ \t]*\r?$" % re.escape(GOOD_TOKEN.encode()))
_CREDENTIALS_LINE = re.compile(rb"(?im)^authorization[ \t]*:")
_WILD = frozenset({"flipped", "pipelined", "cut", "preface"})
_READ_LINE = re.compile(rb"(?m)(?:GET|HEAD)[ \t]+(\S+)")


@dataclass(frozen=True)
class Shot:
    """What is sent over one connection: its kind, the bytes, and whether they are known to end too early."""

    kind: str
    data: bytes
    is_cut: bool = False

    @property
    def may_be_served(self) -> bool:
        """Whether an answer 2xx may come: a good token stands where it belongs, or a public document is asked for."""
        # In most kinds it is sure what the head is: a token in the body or in a trailer, or one of two, isn't good.
        head = self.data if self.kind in _WILD else self.data.partition(b"\r\n\r\n")[0]
        if _GOOD_LINE.search(head) and (self.kind in _WILD or len(_CREDENTIALS_LINE.findall(head)) == 1):
            return True
        paths = (unquote_to_bytes(target) for target in _READ_LINE.findall(self.data))
        return any(document in path for path in paths for document in DOCUMENTS)


class RequestMutants:
    """An endless stream of requests; a third of those that reach the MCP server come with a good token.

    Args:
        seed: chooses the stream.
        guesses: whether wrong tokens are among them, which lock an address out.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  the same requests again for the same seed
        self._twist = FrameMutants(seed).twist
        self._ways: list[tuple[str, Callable[[], bytes], int]] = [
            *(("method", self._method, 5), ("target", self._target, 10), ("version", self._version, 3)),
            *(("host", self._host, 6), ("origin", self._origin, 6), ("authorization", self._authorization, 10)),
            *(("length", self._length, 6), ("chunked", self._chunked, 6), ("headers", self._headers, 12)),
            *(("body", self._body, 12), ("twisted body", self._twisted, 16), ("preface", self._preface, 3)),
            *(("flipped", self._flipped, 10), ("pipelined", self._pipelined, 4), ("oversized", self._oversized, 1)),
            ("cut", self._cut, 4),
        ]

    def next(self) -> Shot:
        """Return the next request."""
        ((kind, way, _),) = self.chance.choices(self._ways, [weight for _, _, weight in self._ways])
        return Shot(kind, way(), kind == "cut")

    def _request(
        self,
        *,
        method: bytes = b"POST",
        target: bytes = b"/mcp",
        version: bytes = b"HTTP/1.1",
        host: bytes = HOST,
        lines: tuple[bytes, ...] = (),
        body: bytes | None = None,
        authorization: bytes | None = None,
        length: bytes | None = None,
    ) -> bytes:
        """Return a request that is proper but for what is given; with a good token at times."""
        chance = self.chance
        if body is None:
            body = self._message()
        if authorization is None and chance.random() < 0.4:
            authorization = GOOD
        head = [b" ".join((method, target, version)), b"Host: " + host, b"Content-Type: application/json"]
        head += [b"Accept: application/json, text/event-stream", b"MCP-Protocol-Version: " + chance.choice(ERAS)]
        head += [b"Authorization: " + authorization] if authorization is not None else []
        head += [b"Content-Length: " + (b"%d" % len(body) if length is None else length)] if length != b"none" else []
        return b"\r\n".join([*head, *lines, b"", b""]) + body

    def _message(self) -> bytes:
        method, params = self.chance.choice(MESSAGES)
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": dict(params)}
        if not method.startswith("notifications"):
            message["id"] = self.chance.choice((1, "a", 0))
        if self.chance.random() < 0.4:
            message["params"]["_meta"] = META
        return json.dumps(message).encode()

    def _method(self) -> bytes:
        return self._request(method=self.chance.choice(METHODS), target=self.chance.choice((b"/mcp", *DOCUMENTS)))

    def _target(self) -> bytes:
        return self._request(method=self.chance.choice((b"GET", b"POST")), target=self.chance.choice(TARGETS))

    def _version(self) -> bytes:
        return self._request(version=self.chance.choice(VERSIONS))

    def _host(self) -> bytes:
        return self._request(host=self.chance.choice(HOSTS), target=self.chance.choice((b"/mcp", *DOCUMENTS)))

    def _origin(self) -> bytes:
        return self._request(lines=(b"Origin: " + self.chance.choice(ORIGINS),))

    def _authorization(self) -> bytes:
        twice = (b"Authorization: " + self.chance.choice(AUTHORIZATIONS),) if self.chance.random() < 0.15 else ()
        return self._request(authorization=self.chance.choice(AUTHORIZATIONS), lines=twice)

    def _length(self) -> bytes:
        more = (b"Content-Length: 5",) if self.chance.random() < 0.2 else ()
        if self.chance.random() < 0.1:  # more digits than Python reads, and right
            body = self._message()
            return self._request(body=body, length=b"0" * 5_000 + b"%d" % len(body))
        return self._request(length=self.chance.choice(LENGTHS), lines=more)

    def _chunked(self) -> bytes:
        coding = b"Transfer-Encoding: " + self.chance.choice((b"chunked", self.chance.choice(CODINGS)))
        length = self.chance.choice((b"none", b"none", None, b"5"))
        message = self._message()
        proper = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(message), message, self.chance.choice(TRAILERS))
        body = self.chance.choice(CHUNKED) if self.chance.random() < 0.7 else proper
        return self._request(length=length, lines=(coding,), body=body)

    def _headers(self) -> bytes:
        chosen = self.chance.choices(OTHER_HEADERS, k=self.chance.choice((1, 1, 2, 5)))
        return self._request(lines=tuple(chosen), target=self.chance.choice((b"/mcp", b"/mcp", *DOCUMENTS)))

    def _body(self) -> bytes:
        return self._request(body=self.chance.choice(BODIES))

    def _twisted(self) -> bytes:
        body = self._message()
        if self.chance.random() < 0.2:
            body = b"[" + body + b"," + self._message() + b"]"
        return self._request(body=self._twist(body), authorization=GOOD)

    def _preface(self) -> bytes:
        return self.chance.choice(PREFACES) + (self._request() if self.chance.random() < 0.3 else b"")

    def _flipped(self) -> bytes:
        """Return a proper request with some bytes changed, taken out or put in."""
        data = bytearray(self._request())
        for _ in range(self.chance.choice((1, 1, 2, 10))):
            place = self.chance.randrange(len(data))
            kind = self.chance.randrange(4)
            if kind == 0:
                data[place] ^= 1 << self.chance.randrange(8)
            elif kind == 1:
                del data[place]
            elif kind == 2:
                data[place:place] = self.chance.choice((b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"\xff", b"\r\n\r\n"))
            else:
                data[place] = self.chance.randrange(256)
        return bytes(data)

    def _pipelined(self) -> bytes:
        """Return several requests in one piece, a bad one among them."""
        way = self.chance.choice((self._flipped, self._length, self._chunked, self._preface))
        return b"".join(self.chance.sample([self._request(), self._request(method=b"GET", body=b""), way()], k=3))

    def _oversized(self) -> bytes:
        kind = self.chance.randrange(3)
        if kind == 0:
            return self._request(lines=(b"X: " + b"y" * (2 * MAX_HEAD_BYTES),))
        if kind == 1:
            return self._request(body=b"x" * (2 * MAX_BODY_BYTES))
        return b"POST /" + b"m" * (2 * MAX_HEAD_BYTES)

    def _cut(self) -> bytes:
        data = self.chance.choice((self._request, self._chunked, self._headers))()
        return data[: self.chance.randrange(len(data))]
