"""Signatures of jobs, from end to end: a client makes them and the worker verifies them, whoever relays the job.

A signed request is a POST's JSON object with two more keys at its end, which NorFab's workers ignore:

    {"task":…,"kwargs":…,…,"signed":{"client":…,"time":…,"uuid":…,"service":…,"workers":[…]},"signature":"…"}

The signature is that of the exact bytes before `,"signature":`, so there is no canonical form that both sides would
have to agree on: no byte may change on the way. `signed` says whom the request is for, and when and by whom it was
signed: `client` is a public CURVE key, whose file also has the key to verify with, and `time` is in milliseconds since
the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..signing_keys import SIGNATURE_BYTES, SigningKey, is_signature
from .frames import encode_data

_DOMAIN = b"nfcli job, version 1\n"
"""Keeps these signatures apart from others that may be made with the same key."""

_TAIL = re.compile(rb',"signature":"([0-9a-f]{%d})"\}\Z' % (2 * SIGNATURE_BYTES))
_TAIL_BYTES = len(b',"signature":""}') + 2 * SIGNATURE_BYTES


class Statement(BaseModel):
    """What a client states about a job that it has signed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    client: str
    time: int = Field(ge=0)
    uuid: str
    service: str
    workers: list[str]


@dataclass(frozen=True, slots=True)
class Proof:
    """The signature of a request that has arrived; nothing about it has been verified."""

    request: bytes
    signature: bytes
    statement: object

    @classmethod
    def find(cls, data: bytes, statement: object) -> Proof | None:
        """Return the proof in a request's data, None if that isn't signed; `statement` is the value of `signed`."""
        tail = _TAIL.search(data, max(0, len(data) - _TAIL_BYTES))
        return None if tail is None else cls(data, bytes.fromhex(tail[1].decode()), statement)

    def is_by(self, public: str) -> bool:
        """Whether the request was signed with the key whose public half is `public`."""
        return is_signature(public, _DOMAIN + self.request[:-_TAIL_BYTES], self.signature)


class JobSigner:
    """Signs the jobs of a client; `client` is its public CURVE key, `clock` returns seconds since the epoch."""

    def __init__(self, client: str, key: SigningKey, clock: Callable[[], float]) -> None:
        self._client = client
        self._key = key
        self._clock = clock

    def sign(self, request: bytes, *, uuid: str, service: str, workers: Sequence[str]) -> bytes:
        """Return an encoded request with its signature, valid once at each of these workers, for a short time.

        Raises:
            UsageError: a name or the uuid is not valid Unicode.
        """
        statement = {
            "client": self._client,
            "time": int(self._clock() * 1_000),
            "uuid": uuid,
            "service": service,
            "workers": list(workers),
        }
        try:
            signed = request.removesuffix(b"}") + b',"signed":' + encode_data(statement)
        except ValueError:
            raise UsageError("the job's uuid, service and workers must be valid Unicode") from None
        signature = self._key.sign(_DOMAIN + signed)
        return b'%b,"signature":"%b"}' % (signed, signature.hex().encode())
