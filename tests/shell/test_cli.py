"""The options of the `nfcli` program that go with nothing else: which those are, and what is said where they don't."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfcli.shell.cli import main

MODES = {
    "--backup": ["--backup", "f"],
    "--restore": ["--restore", "f"],
    "--import-norfab": ["--import-norfab", "d"],
    "--check": ["--check"],
}
OTHERS = {"-w": ["-w"], "--create-env": ["--create-env", "d"], "a command": ["show", "norfab", "workers"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.combinations(MODES, 2), *itertools.product(MODES, OTHERS)], ids=str
)
def test_backup_restore_import_and_check_go_alone(
    one: str, other: str, folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, and nothing was done, here or in the default environment."""
    assert main([*MODES[one], *({**MODES, **OTHERS}[other])]) == 2
    said = capsys.readouterr()
    others = ", ".join(name for name in [*MODES, "-w", "--create-env"] if name != one)
    assert (said.out, said.err) == ("", f"nfcli: {one} must be used alone: without a command and without {others}\n")
    assert [*folder.iterdir(), *home.iterdir()] == []


@pytest.mark.parametrize("words", [["--check"], ["-w"], ["show", "norfab", "workers"], []])
def test_worker_goes_with_backup_restore_and_import_only(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands have a field for it; a foreground runs them all."""
    assert main(["--worker", "w1", *words]) == 2
    told = (
        "nfcli: --worker needs --backup, --restore or --import-norfab: for a command, type its field workers instead\n"
    )
    assert capsys.readouterr().err == told
    assert list(home.iterdir()) == []


def test_a_reader_that_leaves_early_ends_a_check_without_an_error(folder: Path) -> None:
    """As `nfcli --check | head -1` does; no traceback, no complaint at the exit."""
    (folder / "inventory.yaml").write_text("workers: {w1: [{service: fastmcp, port: 0}]}\n")
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-c", "from nfcli.shell.cli import main; raise SystemExit(main())", "--check"]
    try:
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
