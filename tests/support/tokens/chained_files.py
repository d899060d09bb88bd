"""An audit trail's files, for the tests that write them and for those that tamper with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nfcli.models.errors import AuditError
from nfcli.worker.audit.file import ChainedFile

Open = Callable[[], ChainedFile]


def refused(file: ChainedFile, match: str = "was moved or altered, nothing changed") -> None:
    """Add a line in vain."""
    with pytest.raises(AuditError, match=match):
        file.append({"actor": "nobody"})
