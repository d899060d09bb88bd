"""Hostile pickles in a NorFab worker's database: none runs code, hangs, or keeps other records from being read."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from nfcli.shell.maintenance.norfab_database import PlainUnpickler, find_database, read_tokens
from support.norfab.database import NorfabDatabase

NOW = 1_000_000_000.0
CREATED = "2026-05-31 12:08:51.914919"


def read(folder: Path) -> tuple[list[str], int]:
    """Return the tokens of a database and the number of records that were unreadable."""
    found = read_tokens(find_database(folder), NOW)
    assert (found.expired, found.invalid) == (0, 0)
    return [each.token for each in found.tokens], found.unreadable


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def traps(proof: Path) -> dict[str, bytes]:
    """Return pickles that run code: in each protocol, alone and in place of a record's texts."""
    record = {"token": "t1", "username": "alice", "created": CREATED}
    made = {f"alone {protocol}": pickle.dumps(Trap(proof), protocol) for protocol in range(6)}
    for name in record:
        made[f"as {name}"] = pickle.dumps({**record, name: Trap(proof)})
    made["as another field"] = pickle.dumps({**record, "more": Trap(proof)})
    # A complete record on top of the stack, above a call that has already been made.
    made["before it"] = pickle.dumps(Trap(proof))[:-1] + b"0" + pickle.dumps(record)[2:]
    return made


@pytest.mark.parametrize("trap", sorted(traps(Path())))
def test_a_hostile_pickle_never_runs(norfab: NorfabDatabase, tmp_path: Path, trap: str) -> None:
    """It is unreadable; `pickle.loads` is the control that it would run."""
    proof = tmp_path / "it ran"
    data = traps(proof)[trap]
    norfab.plant(data)
    assert read(norfab.folder) == ([], 1)
    assert not proof.exists()
    pickle.loads(data)  # noqa: S301  the control
    assert proof.exists()


@pytest.mark.parametrize("trap", sorted(traps(Path())))
def test_the_unpickler_alone_runs_nothing_either(tmp_path: Path, trap: str) -> None:
    """It would be the last defence against an instruction that should have been refused."""
    with pytest.raises(pickle.UnpicklingError):
        PlainUnpickler(io.BytesIO(traps(tmp_path / "it ran")[trap])).load()
    assert not (tmp_path / "it ran").exists()


def test_the_unpickler_loads_no_persistent_ids() -> None:
    """They could refer to anything."""
    with pytest.raises(pickle.UnpicklingError):
        PlainUnpickler(io.BytesIO(b"\x80\x02U\x01aQ.")).load()


class Shared(pickle.Pickler):
    """Refers to everything by a persistent id."""

    def persistent_id(self, obj: Any) -> Any:
        """Return an id for each text."""
        return "id" if type(obj) is str else None


def with_ids() -> bytes:
    """Return a pickle with persistent ids."""
    stream = io.BytesIO()
    Shared(stream).dump({"token": "t1"})
    return stream.getvalue()


def nested(levels: int) -> bytes:
    """Return a dictionary whose key contains itself twice on each level: its hash takes 2 ** levels steps."""
    made = (b"\x940" + bytes([0x68, level, 0x68, level, 0x86]) for level in range(levels))
    return b"\x80\x04})" + b"".join(made) + b"Ns."


UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "no pickle": b"bearer",
    "cut short": pickle.dumps({"token": "t1", "username": "alice", "created": CREATED})[:-9],
    "a text": pickle.dumps("t1"),
    "a list": pickle.dumps(["t1", "alice", CREATED]),
    "a field less": pickle.dumps({"token": "t1", "username": "alice"}),
    "a field more": pickle.dumps({"token": "t1", "username": "alice", "created": CREATED, "more": ""}),
    "a number": pickle.dumps({"token": "t1", "username": "alice", "created": 1}),
    "bytes": pickle.dumps({"token": b"t1", "username": "alice", "created": CREATED}),
    "a dictionary inside": pickle.dumps({"token": {}, "username": "alice", "created": CREATED}),
    "a dictionary as key": b"\x80\x04}}Ks.",
    "a dictionary as key of texts": b"\x80\x04}(}\x8c\x01au.",
    "a reference to nothing": b"\x80\x04h\x07.",
    "an end without a beginning": b"\x80\x04u.",
    "a frame without an end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "a memory of 64 GiB": b"\x80\x04}r\xff\xff\xff\x7f.",
    "a hash that takes for ever": nested(60),
    "persistent ids": with_ids(),
    "deep": b"\x80\x04" + b"}" * 60_000 + b".",
}


@pytest.mark.parametrize("what", sorted(UNREADABLE))
def test_a_value_that_is_not_a_plain_record_is_counted(norfab: NorfabDatabase, what: str) -> None:
    """It takes no time, and the other records are read."""
    norfab.store("good", "alice")
    norfab.plant(UNREADABLE[what])
    assert read(norfab.folder) == (["good"], 1)
