"""Private files: how they are created, and which are refused."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfcli.models.environment.private_files import open_private, write_private
from nfcli.models.errors import EnvironmentFolderError

Modes = Callable[[Path], dict[str, str]]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", ["w", "a", "x", "wb", "ab", "xb", "w+", "x+b"])
def test_new_file_is_private_whatever_the_umask(tmp_path: Path, modes: Modes, mode: str) -> None:
    """Every mode that creates a file creates it 0600, and what is written arrives."""
    with open_private(tmp_path / "file", mode) as stream:
        stream.write(b"one" if "b" in mode else "one")
    assert modes(tmp_path) == {"file": "0600"}
    assert (tmp_path / "file").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("mode", "expected"), [("w", "now"), ("a", "before now"), ("r+", "nowore "), ("w+", "now"), ("a+", "before now")]
)
def test_existing_file_is_opened_as_open_does(tmp_path: Path, mode: str, expected: str) -> None:
    """The modes mean what they mean to the built-in `open`."""
    with open_private(tmp_path / "file", "x") as stream:
        stream.write("before ")
    with open_private(tmp_path / "file", mode) as stream:
        stream.write("now")
    with open_private(tmp_path / "file") as stream:
        assert stream.read() == expected


def test_text_is_utf8(tmp_path: Path) -> None:
    """Whatever the locale."""
    with open_private(tmp_path / "file", "w") as stream:
        stream.write("Grüße")
    assert (tmp_path / "file").read_bytes() == "Grüße".encode()


def test_exclusive_creation_refuses_an_existing_file(tmp_path: Path) -> None:
    """As `open` does."""
    open_private(tmp_path / "file", "x").close()
    with pytest.raises(FileExistsError):
        open_private(tmp_path / "file", "x")


@pytest.mark.parametrize("mode", ["r", "w", "x"])
def test_missing_folder_raises_as_open_does(tmp_path: Path, mode: str) -> None:
    """Callers distinguish a missing file from a refused one."""
    with pytest.raises(FileNotFoundError):
        open_private(tmp_path / "missing" / "file", mode)


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+"])
def test_wide_file_is_refused_before_it_is_changed(tmp_path: Path, mode: str) -> None:
    """Its content survives the refusal, also in a mode that truncates."""
    file = tmp_path / "my file"
    file.write_text("content")
    file.chmod(0o644)
    with pytest.raises(EnvironmentFolderError) as caught:
        open_private(file, mode)
    assert str(caught.value) == f"{file} has mode 0644 and is open to other users: run chmod 600 '{file}'"
    assert file.read_text() == "content"


@pytest.mark.parametrize("mode", ["r", "w", "a"])
@pytest.mark.parametrize("target", ["target", "missing"])
def test_link_is_never_followed(tmp_path: Path, mode: str, target: str) -> None:
    """What it points to is neither read, changed nor created."""
    (tmp_path / "target").write_text("content")
    (tmp_path / "target").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(EnvironmentFolderError, match=r"/link is a symbolic link"):
        open_private(tmp_path / "link", mode)
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if not path.is_symlink()} == {
        "target": "content"
    }


def test_fifo_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    """Opening a FIFO would block until its other end is opened."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(EnvironmentFolderError) as caught:
        open_private(tmp_path / "fifo")
    assert str(caught.value) == f"{tmp_path / 'fifo'} must be a regular file: move away what is there"


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could change it at any moment; the command that fixes it can be pasted into a shell."""
    file = tmp_path / "a file"
    open_private(file, "x").close()
    owner, user = pwd.getpwuid(os.geteuid()).pw_name, 54_321
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(EnvironmentFolderError) as caught:
        open_private(file)
    assert str(caught.value) == (
        f"{file} belongs to user {owner}, not to user {user} who runs nfcli: "
        f"run nfcli as that user, or run chown {user} '{file}'"
    )


def test_file_removed_between_two_steps_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may remove the file after it was found to exist."""
    file = tmp_path / "file"
    open_private(file, "x").close()
    real = os.open

    def remove_first(path: Path, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            file.unlink()
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", remove_first)
    with open_private(file, "a") as stream:
        stream.write("text")
    assert file.read_text() == "text"


@pytest.mark.usefixtures("umask")
def test_written_file_is_private_and_nothing_else_remains(tmp_path: Path, modes: Modes) -> None:
    """The temporary file becomes the file."""
    write_private(tmp_path / "file", b"one")
    write_private(tmp_path / "file", b"two")
    assert modes(tmp_path) == {"file": "0600"}
    assert (tmp_path / "file").read_bytes() == b"two"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=10_000))
def test_written_bytes_are_read_back(tmp_path: Path, data: bytes) -> None:
    """No byte is converted."""
    write_private(tmp_path / "file", data)
    with open_private(tmp_path / "file", "rb") as stream:
        assert stream.read() == data


def test_reader_of_the_old_content_keeps_it(tmp_path: Path) -> None:
    """A file is replaced, not rewritten: a reader that has it open sees the old content to its end."""
    write_private(tmp_path / "file", b"old content")
    with open_private(tmp_path / "file", "rb") as stream:
        write_private(tmp_path / "file", b"new")
        assert stream.read() == b"old content"


def test_content_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash of the machine the name leads to the old content or to the new, never to an empty file."""
    steps = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.fstat(descriptor).st_ino))
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (steps.append("rename"), real(path, target)))
    write_private(tmp_path / "file", b"content")
    assert steps == [(tmp_path / "file").stat().st_ino, "rename", tmp_path.stat().st_ino]


def test_failed_write_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    """The temporary file is removed when the replacement fails."""
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_private(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_refused_mode_leaks_no_descriptor(tmp_path: Path) -> None:
    """A mode that `open` itself refuses is refused here too, and the file is closed again."""
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(ValueError, match="binary mode"):
        open_private(tmp_path / "file", "wbt")
    assert len(list(Path("/dev/fd").iterdir())) == before
