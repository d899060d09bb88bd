"""The slot for one transfer: exclusive use, expiry and clean-up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nfcli.models.errors import TaskError
from nfcli.worker.tokens.transfers import IDLE_SECONDS, Transfer, TransferSession

BUSY = (
    r"^another backup of this worker is in progress, nothing changed: try again when it has ended "
    r"\(an abandoned one expires after 30 s\)$"
)
GONE = (
    r"^this backup is no longer in progress, nothing changed: start again "
    r"\(an abandoned one expires after 30 s\)$"
)


@pytest.fixture
def ticks() -> SimpleNamespace:
    """Return the clock by which transfers grow old."""
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def session(ticks: SimpleNamespace, folder: Path) -> TransferSession:
    """Return room for a backup."""
    return TransferSession("backup", folder, lambda: ticks.now)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of transfers; it doesn't exist yet."""
    return tmp_path / "w1.backup"


def begun(session: TransferSession) -> Transfer:
    """Begin a transfer that has a file."""
    with session.open() as transfer:
        transfer.file.write_bytes(b"tokens")
        return session.commit(transfer, size=6, sha256="")


@pytest.mark.parametrize("is_verified", [False, True])
def test_a_transfer_has_what_was_announced(session: TransferSession, folder: Path, is_verified: bool) -> None:
    """Its size, its SHA-256, and whether its seal was verified; an id that can't be guessed, and a private folder."""
    with session.open() as transfer:
        assert (transfer.size, transfer.sha256, transfer.is_verified) == (0, "", False)
        committed = session.commit(transfer, size=6, sha256="ab", is_verified=is_verified)
    assert committed == Transfer(transfer.id, folder / "tokens.db", 6, "ab", is_verified)
    assert len(bytes.fromhex(transfer.id)) == 16
    assert oct(folder.stat().st_mode) == "0o40700"
    with session.acquire(transfer.id) as used:
        assert used == committed


def test_each_use_is_a_sign_of_life(session: TransferSession, ticks: SimpleNamespace) -> None:
    """A slow client keeps what it began for as long as it goes on."""
    transfer = begun(session)
    for _ in range(3):
        ticks.now += IDLE_SECONDS - 1
        session.expire()
        with session.acquire(transfer.id) as used:
            assert used == transfer
    with pytest.raises(TaskError, match=BUSY), session.open():
        pass
    assert transfer.file.read_bytes() == b"tokens"


def test_what_is_left_is_dropped_with_its_file(session: TransferSession, folder: Path, ticks: SimpleNamespace) -> None:
    """By the worker, at the very moment; its id is dead."""
    transfer = begun(session)
    ticks.now += IDLE_SECONDS
    session.expire()
    assert not folder.exists()
    with pytest.raises(TaskError, match=GONE), session.acquire(transfer.id):
        pass


def test_the_next_one_takes_the_place_of_one_that_was_left(session: TransferSession, ticks: SimpleNamespace) -> None:
    """An idle transfer is replaced even if the worker hasn't expired it yet."""
    first = begun(session)
    ticks.now += IDLE_SECONDS
    second = begun(session)
    with pytest.raises(TaskError, match=GONE), session.acquire(first.id):
        pass
    with session.acquire(second.id):
        assert second.file.exists()


def test_what_is_in_use_is_not_dropped_for_its_age(session: TransferSession, ticks: SimpleNamespace) -> None:
    """A long commit isn't a client that has gone. Nobody waits: a thread that did would be missing for all jobs."""
    transfer = begun(session)
    with session.acquire(transfer.id):
        ticks.now += IDLE_SECONDS
        session.expire()
        with pytest.raises(TaskError, match=BUSY), session.open():
            pass
        with (
            pytest.raises(TaskError, match=r"^another step of this backup is in progress: wait for its result$"),
            session.acquire(transfer.id),
        ):
            pass
    with session.acquire(transfer.id):
        assert transfer.file.exists()


def test_while_one_begins_no_other_may(session: TransferSession, folder: Path) -> None:
    """A second transfer is refused while the first starts, and leaves its folder in place."""
    with session.open():
        with pytest.raises(TaskError, match=BUSY), session.open():
            pass
        assert folder.exists()
    assert not folder.exists()


def test_a_beginning_that_fails_leaves_nothing(session: TransferSession, folder: Path) -> None:
    """The room is free again."""

    def fail() -> None:
        with session.open() as transfer:
            transfer.file.write_bytes(b"tokens")
            raise TaskError("no")

    with pytest.raises(TaskError, match=r"^no$"):
        fail()
    assert not folder.exists()
    assert begun(session).file.exists()


@pytest.mark.parametrize("is_last", [True, False])
def test_a_last_step_ends_the_transfer_also_when_it_fails(
    session: TransferSession, folder: Path, is_last: bool
) -> None:
    """Others leave it as it was."""
    transfer = begun(session)
    with pytest.raises(TaskError, match=r"^no$"), session.acquire(transfer.id, is_last=is_last):
        raise TaskError("no")
    assert folder.exists() is not is_last


def test_a_link_in_the_folders_place_is_not_followed(session: TransferSession, folder: Path, tmp_path: Path) -> None:
    """What it points to is left alone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    folder.symlink_to(elsewhere)
    with pytest.raises(TaskError, match=r"w1\.backup is a symbolic link"):
        begun(session)
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
