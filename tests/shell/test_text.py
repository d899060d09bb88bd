"""Text for terminals: rows of help that are wider than the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.shell.text import cell_width, wrap_rows

ROWS = """\
 create-token    Create authentication token for a user who is named
 list-tokens     Retrieve authentication tokens
 <ENTER>         Enter auth"""


def test_wide_row_is_continued_below_its_description() -> None:
    """The others stay as they are; nothing is divided within a word."""
    assert wrap_rows(ROWS, 48) == (
        " create-token    Create authentication token for\n"
        "                 a user who is named\n"
        " list-tokens     Retrieve authentication tokens\n"
        " <ENTER>         Enter auth"
    )
    assert wrap_rows(ROWS, 80) == ROWS


def test_description_far_to_the_right_is_continued_at_the_left() -> None:
    """So that it keeps some width."""
    assert wrap_rows(" a-rather-long-name    what it is for", 30) == " a-rather-long-name    what it\n    is for"


def test_values_without_a_name_are_continued_below_each_other() -> None:
    """As those that may be typed for a field are."""
    assert wrap_rows("     ann, bob, carol", 14) == "     ann, bob,\n     carol"


@pytest.mark.parametrize("columns", [10, 20, 33])
@given(
    words=st.lists(st.text("ab-漢é", min_size=1, max_size=9), min_size=1, max_size=30), name=st.text("ab", max_size=6)
)
def test_no_word_is_lost_or_divided(columns: int, words: list[str], name: str) -> None:
    """And no line is too wide unless one word is."""
    wrapped = wrap_rows(f" {name}    {' '.join(words)}", columns)
    assert wrapped.split() == [*name.split(), *words]
    for line in wrapped.split("\n"):
        assert cell_width(line) <= columns or len(line.split()) <= 2
