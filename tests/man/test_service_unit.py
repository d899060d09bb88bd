"""The systemd unit of the manual gives the workers few rights."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

EXPOSURE = 20
"""Tenths: systemd rates units from 0, without any right, to 100."""


def rate(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have systemd rate a unit; status 0 if it is exposed less than `EXPOSURE`."""
    file = folder / "nfcli.service"
    file.write_text(unit)
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """The same without what restricts it isn't."""
    page = files("nfcli").joinpath("man", "pages", "inventory.md").read_text()
    (unit,) = re.findall(r"^```text\n(\[Unit\]\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    rated = rate(unit, tmp_path)
    assert rated.returncode == 0, rated.stdout + rated.stderr
    bare = "".join(line for line in unit.splitlines(keepends=True) if re.match(r"\[|ExecStart=|User=", line))
    assert rate(bare, tmp_path).returncode != 0
