"""The page `norfab-commands` has every command of NorFab's shell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from nfcli.man.pages import read_page
from support.norfab.command_table import table_lines

PROGRAM = Path(__file__).parents[2] / "support" / "norfab" / "reference" / "command_tree.py"


def test_the_page_lists_the_commands_of_the_reference(reference_python: str, tmp_path: Path) -> None:
    """A row for each, in the order of its tree; the program that makes the rows reads that tree."""
    ran = subprocess.run([reference_python, PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = json.loads(ran.stdout)
    assert len(rows) > 200
    _, _, shown = read_page("norfab-commands").partition("```text\n")
    assert shown.removesuffix("\n```").splitlines() == table_lines(rows), "print table_lines(rows) into the page"
