"""The mailbox tells whether its reader's thread still goes round."""

from __future__ import annotations

import select
import time

import pytest

from nfcli.models.mailbox import STALL_SECONDS, Mailbox


def test_a_reader_that_stopped_reading_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is woken each time, so that an idle one has read by the next question."""
    mailbox: Mailbox[str] = Mailbox()
    try:
        assert mailbox.is_being_read()
        assert select.select([mailbox.reader], [], [], 0)[0] == [mailbox.reader]
        later = time.monotonic() + STALL_SECONDS
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert not mailbox.is_being_read()
        assert list(mailbox.drain()) == []
        assert mailbox.is_being_read()
    finally:
        mailbox.close()
