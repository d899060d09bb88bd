"""The seal of a backup: whoever lacks the fleet key can't forge it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nfcli.models.environment.fleet_key import FleetKey
from nfcli.models.errors import TaskError
from nfcli.models.tasks.backup import MAX_TRAILER_BYTES, BackupSeal, encode_trailer, parse_trailer
from nfcli.worker.tasks.backup_seal import seal_backup, verify_seal

KEY, OTHER = FleetKey(b"k" * 32), FleetKey(b"o" * 32)
SIZE, HASH = 4096, "ab" * 32
SEAL = seal_backup(KEY, size=SIZE, sha256=HASH, worker="w1", time="2026-05-31T10:00:00+00:00")
ALTERED = "the backup was altered since it was sealed, nothing changed: use another backup"
ACCEPT = "repeat with --unverified$"


def check(seal: BackupSeal | None, *, size: int = SIZE, sha256: str = HASH, unverified: bool = False) -> bool:
    """Verify a seal with the fleet key."""
    return verify_seal(KEY, seal, size=size, sha256=sha256, unverified=unverified)


def test_a_seal_is_verified_by_every_machine_with_the_fleet_key() -> None:
    """The key is all that is needed."""
    assert verify_seal(replace(KEY), SEAL, size=SIZE, sha256=HASH, unverified=False) is True
    assert check(SEAL, unverified=True) is True
    assert SEAL.key == KEY.id


@pytest.mark.parametrize("unverified", [False, True])
@pytest.mark.parametrize(
    "altered",
    [
        {"sha256": "cd" * 32},
        {"size": SIZE + 1},
        {"seal": SEAL.model_copy(update={"worker": "w2"})},
        {"seal": SEAL.model_copy(update={"time": "2026-06-01T10:00:00+00:00"})},
        {"seal": SEAL.model_copy(update={"seal": "0" * 64})},
        {
            "seal": seal_backup(OTHER, size=SIZE, sha256=HASH, worker="w1", time=SEAL.time).model_copy(
                update={"key": KEY.id}
            )
        },
    ],
    ids=["content", "size", "worker", "time", "seal", "sealed with another key"],
)
def test_an_altered_backup_is_refused(altered: dict[str, object], unverified: bool) -> None:
    """Whatever was altered, and also where backups without a seal would be accepted."""
    with pytest.raises(TaskError, match=ALTERED):
        check(**{"seal": SEAL, **altered}, unverified=unverified)  # type: ignore[arg-type]


def test_a_backup_without_a_seal_is_accepted_only_on_request() -> None:
    """Earlier versions wrote none: anybody can make such a file."""
    with pytest.raises(TaskError, match=rf"^the backup has no seal, as earlier versions wrote them, .*{ACCEPT}"):
        check(None)
    assert check(None, unverified=True) is False


def test_a_backup_of_another_fleet_is_accepted_only_on_request() -> None:
    """The message names both keys by their ids, and what to do."""
    seal = seal_backup(OTHER, size=SIZE, sha256=HASH, worker="w1", time=SEAL.time)
    keys = rf"\({OTHER.id}, here {KEY.id}\)"
    with pytest.raises(TaskError, match=rf"^the backup was sealed with another fleet key {keys}, .*{ACCEPT}"):
        check(seal)
    assert check(seal, unverified=True) is False


def test_a_trailer_is_read_as_it_was_written() -> None:
    """Behind any content; earlier versions' trailers have no seal."""
    trailer = encode_trailer(HASH, SEAL)
    assert parse_trailer(b"\nnfcli backup 2 sha256 \n" + trailer) == (len(trailer), HASH, SEAL)
    old = f"\nnfcli backup 1 sha256 {HASH}\n".encode()
    assert parse_trailer(trailer + old) == (len(old), HASH, None)
    longest = SEAL.model_copy(update={"worker": "w" * 64, "time": "t" * 40})
    assert len(encode_trailer(HASH, longest)) <= MAX_TRAILER_BYTES


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        encode_trailer(HASH, SEAL)[:-1],
        encode_trailer(HASH, SEAL) + b" ",
        encode_trailer(HASH, SEAL).replace(b"backup 2", b"backup 3"),
        encode_trailer(HASH, SEAL).replace(b"worker w1", b"worker w\xff"),
        encode_trailer(HASH, SEAL).replace(b"worker w1", b"worker w 1"),
        encode_trailer(HASH.upper(), SEAL),
    ],
)
def test_what_is_no_trailer_is_not_read(trailer: bytes) -> None:
    """Such a file is no backup."""
    assert parse_trailer(b"x" * 400 + trailer) is None
