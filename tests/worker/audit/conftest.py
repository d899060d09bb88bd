"""The files of an audit trail, for the tests that write them and for those that tamper with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nfcli.worker.audit.file import ChainedFile

Open = Callable[[], ChainedFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the trail; it doesn't exist yet."""
    return tmp_path / "audit-w1.jsonl"


@pytest.fixture
def head_path(path: Path) -> Path:
    """Return the path of its head."""
    return path.with_suffix(".head")


@pytest.fixture
def open_file(path: Path) -> Iterator[Open]:
    """Open the trail, any number of times; closed at the end of the test."""
    with ExitStack() as opened:

        def open_one() -> ChainedFile:
            file = ChainedFile(path)
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
