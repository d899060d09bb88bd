"""What somebody may have pickled into a NorFab worker's database: nothing of it runs, hangs or hides the rest."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

from nfcli.shell.maintenance import norfab_database
from nfcli.shell.maintenance.norfab_database import find_database, read_tokens
from support.norfab.database import NorfabDatabase

NOW = 1_000_000_000.0
CREATED = "2026-05-31 12:08:51.914919"


def read(folder: Path) -> tuple[list[str], int]:
    """Return the tokens of a database and the number of records that were unreadable."""
    found = read_tokens(find_database(folder), NOW)
    assert (found.expired, found.invalid) == (0, 0)
    return [each.token for each in found.tokens], found.unreadable


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def _traps(proof: Path) -> dict[str, bytes]:
    """Return pickles that run something: by protocol, alone and where a record's texts belong."""
    record = {"token": "t1", "username": "alice", "created": CREATED}
    made = {f"alone {protocol}": pickle.dumps(Trap(proof), protocol) for protocol in range(6)}
    for name in record:
        made[f"as {name}"] = pickle.dumps({**record, name: Trap(proof)})
    made["as another field"] = pickle.dumps({**record, "more": Trap(proof)})
    # A whole record on top of the stack, and below it what has run already.
    made["before it"] = pickle.dumps(Trap(proof))[:-1] + b"0" + pickle.dumps(record)[2:]
    return made


@pytest.mark.parametrize("trap", sorted(_traps(Path())))
def test_a_hostile_pickle_never_runs(norfab: NorfabDatabase, tmp_path: Path, trap: str) -> None:
    """It is unreadable; that it would run is shown with what reads pickles as they come."""
    proof = tmp_path / "it ran"
    data = _traps(proof)[trap]
    norfab.plant(data)
    assert read(norfab.folder) == ([], 1)
    assert not proof.exists()
    pickle.loads(data)  # noqa: S301  the control
    assert proof.exists()


@pytest.mark.parametrize("trap", sorted(_traps(Path())))
def test_the_unpickler_alone_runs_nothing_either(
    norfab: NorfabDatabase, tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should an instruction ever be let through that should not."""
    everything = frozenset(opcode.name for opcode in pickletools.opcodes)
    monkeypatch.setattr(norfab_database, "_PLAIN_INSTRUCTIONS", everything)
    norfab.plant(_traps(tmp_path / "it ran")[trap])
    norfab.plant(b"\x80\x02U\x01aQ.", "bearer_token::by-persistent-id")
    assert read(norfab.folder) == ([], 2)
    assert not (tmp_path / "it ran").exists()


class _Shared(pickle.Pickler):
    """Refers to everything by a persistent id."""

    def persistent_id(self, obj: Any) -> Any:
        return "id" if type(obj) is str else None


def _with_ids() -> bytes:
    stream = io.BytesIO()
    _Shared(stream).dump({"token": "t1"})
    return stream.getvalue()


def _nested(levels: int) -> bytes:
    """Return a dictionary with a key made of itself twice, level by level: its hash takes 2 ** levels steps."""
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
    "a hash that takes for ever": _nested(60),
    "persistent ids": _with_ids(),
    "deep": b"\x80\x04" + b"}" * 60_000 + b".",
}


@pytest.mark.parametrize("what", sorted(UNREADABLE))
def test_what_is_no_plain_record_is_counted(norfab: NorfabDatabase, what: str) -> None:
    """Quickly, and the records beside it are read."""
    norfab.store("good", "alice")
    norfab.plant(UNREADABLE[what])
    assert read(norfab.folder) == (["good"], 1)
