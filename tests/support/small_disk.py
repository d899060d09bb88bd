"""Small file systems that tests fill; only root can mount them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PAGE = 4096


@contextmanager
def small_disk(folder: Path, *, size: str = "1m") -> Iterator[None]:
    """Mount a file system of this size on a new folder; skip the test where that isn't possible."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or not shutil.which("mount")
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small file system can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use all free space of a file system; return the file, which grows again if it is there already."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as stream, suppress(OSError):
        ballast.chmod(0o600)
        while True:
            stream.write(bytes(PAGE))
    return ballast
