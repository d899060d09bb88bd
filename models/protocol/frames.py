"""NFP, the NorFab Protocol version 1: the layout of all frames, which no other module knows.

Frames are counted as a DEALER sees them; a ROUTER sees the peer's identity in front. Text is UTF-8, DATA is compact
JSON (raw bytes in a STREAM). Commands are the ASCII texts of `Command`, not single bytes.

    client -> broker (`ClientMessage`: POST GET PUT DELETE MMI)
        0 empty   1 NFPC01   2 command   3 service   4 target   5 uuid   6 DATA
    broker -> client (`BrokerMessage`: RESPONSE EVENT STREAM MMI)
        0 empty   1 NFPB01   2 command   3 service   4 uuid   5 status   6 DATA
    broker -> worker (`WorkerJob`: POST GET PUT)
        0 empty   1 NFPB01   2 command   3 client identity   4 empty   5 uuid   6 DATA
    worker -> broker (`WorkerMessage`: RESPONSE EVENT STREAM)
        0 empty   1 NFPW01   2 command   3 client identity   4 empty   5 uuid   6 status   7 DATA
    worker <-> broker (`Signal`: READY KEEPALIVE DISCONNECT)
        0 empty   1 NFPW01 or NFPB01   2 command   3 service

Target is `all`, `any`, a worker's name, or a JSON list of names. A broker of norfab 0.25.0 sends its DISCONNECT with
frames 2 and 3 exchanged; `Signal.parse` accepts both orders. Each `parse` ignores surplus frames and raises
ProtocolError for too few frames, another header, an unknown command, or text that isn't UTF-8 or is too long.

A job in direct mode: the client sends POST; the worker answers 202 (naming itself, as a broker would) and, as soon as
the task has ended, 200 with the result. GET requests the result again by uuid: 200, 300 while the task runs, 404 for an
unknown uuid. The answer to an invalid message is 400, to a client whose key was revoked 403.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ..errors import ProtocolError

CLIENT_HEADER = b"NFPC01"
WORKER_HEADER = b"NFPW01"
BROKER_HEADER = b"NFPB01"

BROKER_SERVICE = "mmi.service.broker"
ALL = "all"
ANY = "any"

# Made once: json.dumps makes an encoder for each call that asks for anything but its defaults.
_to_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_MAX_UUID_BYTES = 128
_MAX_SERVICE_BYTES = 256
_MAX_TARGET_BYTES = 64 * 1024


class Command:
    """The commands of frame 2."""

    OPEN = b"0x00"
    READY = b"0x01"
    KEEPALIVE = b"0x02"
    DISCONNECT = b"0x03"
    POST = b"0x04"
    RESPONSE = b"0x05"
    GET = b"0x06"
    DELETE = b"0x07"
    EVENT = b"0x08"
    STREAM = b"0x09"
    PUT = b"0x10"
    MMI = b"0x11"


class Status(StrEnum):
    """Status texts of RESPONSE frames."""

    WAITING_CLIENT_INPUT = "102"
    DONE = "200"
    ACCEPTED = "201"
    DISPATCHED = "202"
    PENDING = "300"
    BAD_REQUEST = "400"
    FORBIDDEN = "403"
    NOT_FOUND = "404"

    @staticmethod
    def is_error(status: str) -> bool:
        """Whether `status` ends the job at that worker, from the client's point of view."""
        return status[:1] in {"4", "5"}


CLIENT_COMMANDS = frozenset({Command.POST, Command.GET, Command.PUT, Command.DELETE, Command.MMI})
_BROKER_TO_CLIENT = frozenset({Command.RESPONSE, Command.EVENT, Command.STREAM, Command.MMI})
_BROKER_TO_WORKER = frozenset({Command.POST, Command.GET, Command.PUT})
_WORKER_TO_BROKER = frozenset({Command.RESPONSE, Command.EVENT, Command.STREAM})
_SIGNALS = frozenset({Command.READY, Command.KEEPALIVE, Command.DISCONNECT})


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """A message of a client: `target` is the encoded frame (see `encode_target`), `data` JSON bytes."""

    command: bytes
    service: str
    target: bytes
    uuid: str
    data: bytes

    def frames(self) -> list[bytes]:
        """Return the frames in order."""
        service, uuid = self.service.encode(), self.uuid.encode()
        return [b"", CLIENT_HEADER, self.command, service, self.target, uuid, self.data]

    @classmethod
    def parse(cls, frames: Sequence[bytes]) -> Self:
        """Parse frames; ProtocolError if they are invalid or the uuid is empty."""
        command, service, target, uuid, data = _check_frames(frames, 7, CLIENT_HEADER, CLIENT_COMMANDS)
        if not uuid:
            raise ProtocolError("the uuid is empty: answers could not be matched to their request")
        return cls(command, _decode(service, _MAX_SERVICE_BYTES), target, _decode(uuid, _MAX_UUID_BYTES), data)


@dataclass(frozen=True, slots=True)
class BrokerMessage:
    """A message to a client, from a broker or from a worker in direct mode."""

    command: bytes
    service: str
    uuid: str
    status: str
    data: bytes

    def frames(self) -> list[bytes]:
        """Return the frames in order."""
        service, uuid, status = self.service.encode(), self.uuid.encode(), self.status.encode()
        return [b"", BROKER_HEADER, self.command, service, uuid, status, self.data]

    @classmethod
    def parse(cls, frames: Sequence[bytes]) -> Self:
        """Parse frames; ProtocolError if they are invalid."""
        command, service, uuid, status, data = _check_frames(frames, 7, BROKER_HEADER, _BROKER_TO_CLIENT)
        service_text = _decode(service, _MAX_SERVICE_BYTES)
        return cls(command, service_text, _decode(uuid, _MAX_UUID_BYTES), _decode(status, 8), data)


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """A message that a broker forwards to a worker; `client` is the identity that the answer goes to."""

    command: bytes
    client: bytes
    uuid: str
    data: bytes

    def frames(self) -> list[bytes]:
        """Return the frames in order."""
        return [b"", BROKER_HEADER, self.command, self.client, b"", self.uuid.encode(), self.data]

    @classmethod
    def parse(cls, frames: Sequence[bytes]) -> Self:
        """Parse frames; ProtocolError if they are invalid."""
        command, client, _, uuid, data = _check_frames(frames, 7, BROKER_HEADER, _BROKER_TO_WORKER)
        return cls(command, client, _decode(uuid, _MAX_UUID_BYTES), data)


@dataclass(frozen=True, slots=True)
class WorkerMessage:
    """A message that a worker sends to a client through a broker."""

    command: bytes
    client: bytes
    uuid: str
    status: str
    data: bytes

    def frames(self) -> list[bytes]:
        """Return the frames in order."""
        uuid, status = self.uuid.encode(), self.status.encode()
        return [b"", WORKER_HEADER, self.command, self.client, b"", uuid, status, self.data]

    @classmethod
    def parse(cls, frames: Sequence[bytes]) -> Self:
        """Parse frames; ProtocolError if they are invalid."""
        command, client, _, uuid, status, data = _check_frames(frames, 8, WORKER_HEADER, _WORKER_TO_BROKER)
        return cls(command, client, _decode(uuid, _MAX_UUID_BYTES), _decode(status, 8), data)


@dataclass(frozen=True, slots=True)
class Signal:
    """READY, KEEPALIVE or DISCONNECT; `header` is the sender's, a worker's or the broker's."""

    header: bytes
    command: bytes
    service: str

    def frames(self) -> list[bytes]:
        """Return the frames in order."""
        return [b"", self.header, self.command, self.service.encode()]

    @classmethod
    def parse(cls, frames: Sequence[bytes]) -> Self:
        """Parse frames, with command and service in either order; ProtocolError if they are invalid."""
        if frames[3:4] == [Command.DISCONNECT] and frames[2] not in _SIGNALS:
            frames = [*frames[:2], frames[3], frames[2]]
        header = BROKER_HEADER if frames[1:2] == [BROKER_HEADER] else WORKER_HEADER
        command, service = _check_frames(frames, 4, header, _SIGNALS)
        return cls(header, command, _decode(service, _MAX_SERVICE_BYTES))


def encode_target(workers: str | Sequence[str]) -> bytes:
    """Encode `all`, `any`, one name, or a list of names."""
    if isinstance(workers, str):
        return workers.encode()
    return encode_data(list(workers))


def decode_target(target: bytes) -> str | list[str]:
    """Return the text of a target frame, or the names in it; ProtocolError if it is neither, or too long."""
    if len(target) > _MAX_TARGET_BYTES:
        raise ProtocolError(f"the target is longer than {_MAX_TARGET_BYTES} bytes")
    if not target.startswith(b"["):
        return _decode(target, _MAX_SERVICE_BYTES)
    names = decode_data(target)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ProtocolError("the target is not a JSON list of worker names")
    return names


def encode_data(value: Any) -> bytes:
    """Return compact UTF-8 JSON; NaN and infinities are refused with ValueError."""
    return _to_text(value).encode()


def decode_data(data: bytes) -> Any:
    """Return the value in a DATA frame; ProtocolError if it isn't strict UTF-8 JSON."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("the data is not JSON") from None


def decode_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a DATA frame; ProtocolError if it is another kind of value, or no strict JSON."""
    value = decode_data(data)
    if not isinstance(value, dict):
        raise ProtocolError("the data is not a JSON object")
    return value


def _refuse_constant(_name: str) -> None:
    raise ValueError("NaN and infinities are not JSON")


def _decode(frame: bytes, limit: int) -> str:
    if len(frame) > limit:
        raise ProtocolError(f"a text frame is longer than {limit} bytes")
    try:
        return frame.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a text frame is not UTF-8") from None


def _check_frames(frames: Sequence[bytes], length: int, header: bytes, commands: frozenset[bytes]) -> Sequence[bytes]:
    """Return the frames from the command on."""
    if len(frames) < length:
        raise ProtocolError(f"{len(frames)} frames where {length} are needed")
    if frames[1] != header:
        raise ProtocolError(f"the header is not {header.decode()}")
    if frames[2] not in commands:
        raise ProtocolError("the command is not one for this direction")
    return frames[2:length]
