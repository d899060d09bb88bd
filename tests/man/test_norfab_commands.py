"""The page `norfab-commands`: what it promises of this shell is there."""

from __future__ import annotations

import re

from nfcli.man.pages import read_page
from support.norfab.command_table import SAME, is_command

ROW = re.compile(r"([a-z][a-z_ -]*[a-z])  +(\S.*)")


def test_each_command_that_the_page_names_is_in_the_tree() -> None:
    """Those that are the same by their own words, others by those that it gives instead; `run` is one of them."""
    rows = [match.groups() for line in read_page("norfab-commands").splitlines() if (match := ROW.fullmatch(line))]
    assert len(rows) > 200
    assert is_command("run")
    named = [command for command, ours in rows if ours == SAME]
    named += [ours for _, ours in rows if ours != SAME and not ours.startswith("no, because ")]
    assert len(named) > 150
    assert [words for words in named if not words.startswith(("run ", "nfcli ")) and not is_command(words)] == []
