"""An audit trail's files, for the tests that write them and for those that tamper with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nfcli.models.errors import AuditError
from nfcli.worker.audit.file import ChainedFile

Open = Callable[[], ChainedFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the trail lies; it doesn't exist yet."""
    return tmp_path / "audit-w1.jsonl"


@pytest.fixture
def head_path(path: Path) -> Path:
    """Return where its head lies."""
    return path.with_suffix(".head")


@pytest.fixture
def open_file(path: Path) -> Iterator[Open]:
    """Open the trail, as often as wanted; the end of the test closes it."""
    with ExitStack() as opened:

        def open_one() -> ChainedFile:
            file = ChainedFile.open(path)
            opened.callback(file.close)
            return file

        yield open_one


@pytest.fixture
def file(open_file: Open) -> ChainedFile:
    """Return an open trail of four lines."""
    file = open_file()
    for number in range(4):
        file.append({"actor": f"a{number}"})
    return file


def refused(file: ChainedFile, match: str = "was moved or altered, nothing changed") -> None:
    """Add a line in vain."""
    with pytest.raises(AuditError, match=match):
        file.append({"actor": "nobody"})
