"""Files whose text is a value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nfcli.models.errors import UsageError
from nfcli.shell.repl.services.texts import MAX_TEXT_BYTES, local_files, read_text_file


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Line ends included, a byte order mark not."""
    (tmp_path / "a").write_bytes("\ufeffé\r\nb\n".encode())
    assert read_text_file(str(tmp_path / "a")) == "é\r\nb\n"


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "large", "latin", "nul"])
def test_what_is_no_text_file_is_refused(tmp_path: Path, kind: str) -> None:
    """By name and reason, without waiting for a pipe or reading a device to its end."""
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "large":
        path.write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    elif kind == "latin":
        path.write_bytes(b"ab\xe9")
    reasons = {
        "missing": "No such file or directory",
        "folder": "Is a directory",
        "pipe": "is not a regular file",
        "device": "is not a regular file",
        "large": "is larger than 1048576 bytes",
        "latin": "byte 3 is not UTF-8",
        "nul": "embedded null byte",
    }
    with pytest.raises(UsageError, match=reasons[kind]) as caught:
        read_text_file(f"{path}\x00" if kind == "nul" else str(path))
    assert "\n" not in str(caught.value)
    assert "\x00" not in str(caught.value)


def test_files_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder and others; hidden ones only when asked for, odd ones never."""
    (tmp_path / "sub").mkdir()
    for name in ("sub/one", "some", ".hidden", "s\x1bx"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert local_files("s") == ["some", "sub/"]
    assert local_files("sub/") == ["sub/one"]
    assert local_files(f"{tmp_path}/so") == [f"{tmp_path}/some"]
    assert local_files(".h") == [".hidden"]
    assert local_files("nowhere/") == []
