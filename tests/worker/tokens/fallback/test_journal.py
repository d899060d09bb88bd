"""The journal of revocations: what a slot holds, how many there are, and what a damaged one does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nfcli.models.errors import EnvironmentFolderError
from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.tokens.fallback.journal import RevocationJournal

SLOTS, SLOT_BYTES = 1024, 64
RECORDS = [
    BearerTokenRecord(token, username, 0.0, None) for token, username in [("t1", "ann"), ("t2", "ann"), ("t3", "bob")]
]


@pytest.fixture
def journal(tmp_path: Path) -> RevocationJournal:
    """Return a journal that was prepared."""
    journal = RevocationJournal(tmp_path)
    journal.prepare()
    return journal


def slot(kind: bytes, text: str) -> bytes:
    """Return the slot of a token or user."""
    body = kind + hashlib.sha256(text.encode()).digest()
    return body + hashlib.sha256(body).digest()[:31]


def revoked(folder: Path) -> list[str]:
    """Return what the next start finds."""
    return [record.token for record in RevocationJournal(folder).read(RECORDS)]


def test_each_revocation_has_a_slot_whose_form_stays(journal: RevocationJournal, tmp_path: Path) -> None:
    """A worker of another version may be the one that reads it; the file has its size and mode from the beginning."""
    file = tmp_path / "revoked"
    assert (file.read_bytes(), oct(file.stat().st_mode)) == (bytes(SLOTS * SLOT_BYTES), "0o100600")
    assert journal.exists()
    assert journal.is_empty
    journal.record(username=None, token="t3")
    journal.record(username="ann", token=None)
    journal.record(username="ann", token="t4")
    assert not journal.is_empty
    content = slot(b"T", "t3") + slot(b"U", "ann") + slot(b"T", "t4")
    assert file.read_bytes() == content + bytes(SLOTS * SLOT_BYTES - len(content))


def test_tokens_and_users_in_it_are_revoked(journal: RevocationJournal, tmp_path: Path) -> None:
    """A token's name isn't taken for a user's, nor the other way round."""
    journal.record(username="bob", token="t2")
    assert revoked(tmp_path) == ["t2"]
    journal.record(username="t1", token=None)
    journal.record(username=None, token="bob")
    assert revoked(tmp_path) == ["t2"]
    journal.record(username="bob", token=None)
    assert revoked(tmp_path) == ["t2", "t3"]


def test_a_cleared_journal_is_empty(journal: RevocationJournal, tmp_path: Path) -> None:
    """Also one that an earlier process wrote; slots are used again from the first one."""
    journal.record(username=None, token="t1")
    journal.record(username=None, token="t2")
    later = RevocationJournal(tmp_path)
    assert (later.is_empty, len(later.read(RECORDS)), later.is_empty) == (True, 2, False)
    later.record(username=None, token="t3")
    assert revoked(tmp_path) == ["t1", "t2", "t3"]
    later.clear()
    assert (later.is_empty, revoked(tmp_path)) == (True, [])
    assert (tmp_path / "revoked").read_bytes() == bytes(SLOTS * SLOT_BYTES)
    later.record(username=None, token="t1")
    assert (tmp_path / "revoked").read_bytes().startswith(slot(b"T", "t1") + bytes(1))


def test_any_text_can_be_recorded(journal: RevocationJournal, tmp_path: Path) -> None:
    """Arguments of a deletion need not be names or tokens that could be stored."""
    for text in ("", "\ud800", "x" * 100_000):
        journal.record(username=text, token=None)
        journal.record(username=None, token=text)
    assert revoked(tmp_path) == []


def test_a_full_journal_takes_no_more(journal: RevocationJournal, tmp_path: Path) -> None:
    """The last slot is used too, and nothing is written behind it."""
    (tmp_path / "revoked").write_bytes(slot(b"T", "t9") * (SLOTS - 1) + bytes(SLOT_BYTES))
    journal.read(RECORDS)
    journal.record(username=None, token="t1")
    assert revoked(tmp_path) == ["t1"]
    with pytest.raises(OSError, match=r"revoked has no free slot$"):
        journal.record(username=None, token="t2")
    assert (tmp_path / "revoked").stat().st_size == SLOTS * SLOT_BYTES


@pytest.mark.parametrize("place", [0, 1, 32, 33, 63])
def test_a_damaged_slot_is_ignored_and_not_used_again(journal: RevocationJournal, tmp_path: Path, place: int) -> None:
    """The next revocation goes behind it."""
    content = bytearray(slot(b"T", "t1") + slot(b"T", "t2"))
    content[place] ^= 1
    (tmp_path / "revoked").write_bytes(content + bytes(SLOTS * SLOT_BYTES - len(content)))
    assert [record.token for record in journal.read(RECORDS)] == ["t2"]
    journal.record(username=None, token="t3")
    assert revoked(tmp_path) == ["t2", "t3"]
    assert (tmp_path / "revoked").read_bytes()[: len(content)] == content


def test_a_journal_of_another_size_is_made_again(journal: RevocationJournal, tmp_path: Path) -> None:
    """A crash may have left a part of it; a complete one is left alone."""
    file = tmp_path / "revoked"
    for size in (0, SLOT_BYTES, SLOTS * SLOT_BYTES + 1):
        file.write_bytes(bytes(size))
        journal.prepare()
        assert file.stat().st_size == SLOTS * SLOT_BYTES
    journal.record(username=None, token="t1")
    journal.prepare()
    assert revoked(tmp_path) == ["t1"]


def test_a_journal_that_is_not_there_revokes_nothing(tmp_path: Path) -> None:
    """The first start has none; it can't be written to before it is prepared."""
    journal = RevocationJournal(tmp_path)
    assert (journal.exists(), journal.read(RECORDS)) == (False, [])
    with pytest.raises(FileNotFoundError):
        journal.record(username=None, token="t1")
    assert journal.is_empty


def test_a_journal_that_others_can_read_is_refused(journal: RevocationJournal, tmp_path: Path) -> None:
    """They could write to it as well, and revoke tokens."""
    (tmp_path / "revoked").chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match="is open to other users"):
        journal.read(RECORDS)
