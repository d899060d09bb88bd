"""Attack a worker's HTTP port: a hundred thousand malformed, oversized, slow, foreign and smuggled requests.

    python tests/bench/attack_requests.py [--requests N] [--seed N] [--slow N] [--guesses N] [--log-level L]

Each request (`request_mutants.py`) goes over a connection of its own. It must be answered or the connection closed
within a bound; never 5xx, never 2xx without a good token but for the public documents, never anything of the server's
inside. Slow connections are held open beside them. Afterwards the worker must serve as before, with the threads it
began with, no more descriptors, no more memory, and a log that is short, without faults and without tokens. Then the
same, shorter, with the limit of wrong tokens on. Exit status 1 when something was wrong.

tests/end_to_end/security/test_attack_requests.py runs this too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from attacks.request_mutants import RequestMutants, Shot
from attacks.victim import GOOD_TOKEN, FellError, Victim, attacked

CONNECTIONS = 24
CHECKS = 5
QUIET_SECONDS = 0.3
"""A server that says nothing for so long waits for more; the client then ends its side."""

ANSWER_SECONDS = 30.0
SLOW_SECONDS = 35.0
TRICKLE_SECONDS = 1.0
MAX_MORE_THREADS = 60
MAX_MORE_BYTES = 48 * 1024 * 1024
MAX_LOG_BYTES = 1024 * 1024
_LOCKED_OUT = 429
_INSIDE = re.compile(
    rb"Traceback|site-packages|uvicorn|starlette|pydantic|httptools|anyio|\bmcp/\d|\.py\b|^server:",
    re.IGNORECASE | re.MULTILINE,
)
_FAULT = re.compile(rb"Traceback \(most|errors\.pydantic\.dev")
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:([!-9;-~]+: ?[^\r\n]*)\r\n)*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)\r\n", re.IGNORECASE)
_NO_BODY = (100, 204, 304)
_SLOW_BEGINNINGS = (
    b"",
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Length: 90\r\n\r\n{"
    % GOOD_TOKEN.encode(),
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90\r\n\r\n{",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
)


def answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield status and bytes of each complete response, and (0, rest) where what follows isn't one."""
    place = 0
    while place < len(data):
        head = _HEAD.match(data, place)
        if head is None:
            yield 0, data[place:]
            return
        status, end = int(head[1]), head.end()
        length = _LENGTH.search(data, place, end)
        # No body follows an answer to HEAD, whatever its length says.
        if length is not None and status not in _NO_BODY and data[end : end + 7] not in {b"", b"HTTP/1."}:
            end += int(length[1])
        if end > len(data):
            yield 0, data[place:]
            return
        yield status, data[place:end]
        place = end


class Gunner:
    """Sends requests to one address and checks the responses; `wrong` lists those that should not have come."""

    def __init__(self, victim: Victim, seed: int) -> None:
        address = urlsplit(victim.url)
        self.wrong: list[str] = []
        self.statuses: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.slow_seconds: list[float] = []
        self._host, self._port = address.hostname or "", address.port or 0
        self._mutants = RequestMutants(seed)

    def complain(self, shot: Shot, text: str, got: bytes = b"") -> None:
        """Keep what is wrong, up to a bound."""
        if len(self.wrong) < 20:
            self.wrong.append(f"{shot.kind}: {text}: sent {shot.data[:300]!r}, got {got[:300]!r}")

    async def fire(self, count: int) -> None:
        """Fire so many, some of them at the same time."""
        shots = (self._mutants.next() for _ in range(count))

        async def fire_on() -> None:
            for shot in shots:
                self.kinds[shot.kind] += 1
                self._check(shot, await self._exchange(shot))

        await asyncio.gather(*(fire_on() for _ in range(CONNECTIONS)))

    async def _exchange(self, shot: Shot) -> bytes:
        """Send it; return what came until a response was complete or the server closed."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        _close_hard(writer)
        got, has_ended = b"", False
        try:
            writer.write(shot.data)
            if shot.is_cut:
                writer.write_eof()
            while True:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS if has_ended or shot.is_cut else QUIET_SECONDS):
                        part = await reader.read(65_536)
                except TimeoutError:
                    if has_ended or shot.is_cut:
                        self.complain(shot, f"neither answered nor closed within {ANSWER_SECONDS:g} s", got)
                        return got
                    has_ended = True
                    writer.write_eof()
                    continue
                got += part
                if not part or (shot.kind != "pipelined" and _is_answered(got)):
                    return got
        except ConnectionError:
            return got
        finally:
            writer.transport.abort()

    def _check(self, shot: Shot, got: bytes) -> None:
        for status, answer in answers(got):
            self.statuses[str(status)] += 1
            if status == 0:
                # A connection that is cut may cut its last answer; anything else isn't HTTP.
                if not answer.startswith(b"HTTP/1."):
                    self.complain(shot, "the answer is no HTTP", got)
            elif status >= 500:
                self.complain(shot, f"status {status}", got)
            elif 200 <= status < 300 and not shot.may_be_served:
                self.complain(shot, f"served with {status} without a good token", got)
            is_served = status in {200, 202}
            if (_INSIDE.search(answer.partition(b"\r\n\r\n")[0] if is_served else answer)) or _FAULT.search(answer):
                self.complain(shot, "the response reveals internals", got)

    async def linger(self) -> None:
        """Hold a slow connection open: each must be closed by the server, in time."""
        beginning = _SLOW_BEGINNINGS[len(self.slow_seconds) % len(_SLOW_BEGINNINGS)]
        self.slow_seconds.append(0.0)
        place = len(self.slow_seconds) - 1
        reader, writer = await asyncio.open_connection(self._host, self._port)
        started, got = time.monotonic(), b""
        writer.write(beginning)
        try:
            async with asyncio.timeout(SLOW_SECONDS + ANSWER_SECONDS):
                while True:
                    try:
                        async with asyncio.timeout(TRICKLE_SECONDS):
                            part = await reader.read(65_536)
                    except TimeoutError:
                        if beginning and not beginning.startswith(b"GET"):
                            writer.write(b"x")
                        continue
                    got += part
                    if not part:
                        break
        except ConnectionError:
            pass
        except TimeoutError:
            self.complain(Shot("slow", beginning), "never closed", got)
        self.slow_seconds[place] = round(time.monotonic() - started, 1)
        self._check(Shot("slow", beginning), got)
        if self.slow_seconds[place] > SLOW_SECONDS:
            self.complain(Shot("slow", beginning), f"closed after {self.slow_seconds[place]} s", got)
        writer.close()


def _is_answered(got: bytes) -> bool:
    return any(status > 100 for status, _ in answers(got))


def _close_hard(writer: asyncio.StreamWriter) -> None:
    """Have the connection reset at its end: the ports of a hundred thousand would be taken for a minute."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _raid(victim: Victim, gunner: Gunner, requests: int, slow: int) -> list[int]:
    """Fire all requests, with checks in between, beside slow connections; return resident bytes on the way."""
    loop = asyncio.get_running_loop()
    lingering = [asyncio.create_task(gunner.linger()) for _ in range(slow)]
    resident = []
    for number in range(CHECKS):
        await gunner.fire(requests * (number + 1) // CHECKS - requests * number // CHECKS)
        gunner.wrong += await loop.run_in_executor(None, victim.serves)
        resident.append(victim.state().resident_bytes)
    await asyncio.gather(*lingering)
    return resident


def attack(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Attack a worker that counts no wrong tokens; return the report."""
    settings = {"auth_bearer": {"max_wrong_tokens_per_minute": 0}}
    with attacked(folder, log_level=arguments.log_level, **settings) as victim:
        gunner = Gunner(victim, arguments.seed)
        threads = victim.state().threads
        gunner.wrong += victim.serves()
        first = victim.state()
        started = time.perf_counter()
        resident = uvloop.run(_raid(victim, gunner, arguments.requests, arguments.slow))
        seconds = time.perf_counter() - started
        if not victim.calmed(lambda state: state.descriptors <= first.descriptors + 2):
            gunner.wrong.append(f"{victim.state().descriptors} descriptors are open, at first {first.descriptors}")
        last = victim.state()
        if not threads <= last.threads or len(last.threads) > len(threads) + MAX_MORE_THREADS:
            gunner.wrong.append(f"{len(last.threads)} threads run, at first it was {len(threads)}")
        if last.resident_bytes > resident[0] + MAX_MORE_BYTES:
            gunner.wrong.append(f"memory grew from {resident[0]:,} to {last.resident_bytes:,} bytes")
        if arguments.log_level == "INFO" and victim.log_bytes() > MAX_LOG_BYTES + 300 * arguments.requests:
            gunner.wrong.append(f"the logs have {victim.log_bytes():,} bytes")
        gunner.wrong += victim.log_faults()
        return {
            "seconds": round(seconds, 1),
            "requests": sum(gunner.kinds.values()),
            "requests/s": round(arguments.requests / seconds),
            "kinds": dict(sorted(gunner.kinds.items())),
            "answers": dict(sorted(gunner.statuses.items())),
            "slow ones closed after s": sorted(set(gunner.slow_seconds)),
            "resident MB": [round(each / 1e6, 1) for each in (first.resident_bytes, *resident, last.resident_bytes)],
            "threads": [len(threads), len(last.threads)],
            "descriptors": [first.descriptors, last.descriptors],
            "log bytes": victim.log_bytes(),
            "wrong": gunner.wrong,
        }


def attack_guarded(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Attack a worker that locks out who guesses; return the report."""
    with attacked(folder, log_level=arguments.log_level) as victim:
        gunner = Gunner(victim, arguments.seed)
        uvloop.run(gunner.fire(arguments.guesses))
        if not gunner.statuses[str(_LOCKED_OUT)]:
            gunner.wrong.append("no address was locked out")
        if victim.call(GOOD_TOKEN)[0] != _LOCKED_OUT:
            gunner.wrong.append("the address of the attack is not locked out")
        gunner.wrong += victim.serves(address="127.0.0.2")
        gunner.wrong += victim.log_faults()
        return {"requests": sum(gunner.kinds.values()), "answers": dict(gunner.statuses), "wrong": gunner.wrong}


def main() -> int:
    """Attack, print the report as JSON, return the exit status."""
    parser = argparse.ArgumentParser(description="Attack a worker's HTTP port.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--slow", type=int, default=50, help="how many slow connections to hold open")
    parser.add_argument(
        "--guesses", type=int, default=2_000, help="how many requests with the limit of wrong tokens on"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="nf") as folder:
            report = attack(Path(folder), arguments)
        with tempfile.TemporaryDirectory(prefix="nf") as folder:
            guarded = attack_guarded(Path(folder), arguments)
    except FellError as error:
        report, guarded = {"wrong": [str(error)]}, {"wrong": []}
    report |= {"with the limit on": guarded, "wrong": report["wrong"] + guarded["wrong"]}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
