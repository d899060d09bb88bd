"""Results to text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.commands.base import Summary
from nfcli.shell.output.render import to_json, to_table, to_text
from nfcli.shell.text import cell_width, escape_line, escape_text, quote_for_message

COLUMNS = ("worker", "username", "token")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_json_is_indented_by_four() -> None:
    """A result without pipes looks as the owner's transcripts have it."""
    assert to_json({"fastmcp-worker-1": True}) == '{\n    "fastmcp-worker-1": true\n}'


@given(json_values)
def test_json_comes_back_and_holds_nothing_a_terminal_acts_on(value: object) -> None:
    """Whatever the data, the JSON is the same data, and only newlines and printable or harmless characters."""
    text = to_json(value)
    assert json.loads(text) == value
    assert text == escape_text(text)


def test_json_keeps_other_scripts_readable() -> None:
    """Letters are not escaped; control characters and direction marks are, as JSON has it."""
    assert to_json(["жук", "a\x1b[2J\x9b\u202e"]) == '[\n    "жук",\n    "a\\u001b[2J\\u009b\\u202e"\n]'


def test_a_table_has_a_header_and_a_line_a_row() -> None:
    """One leading blank, two blanks between columns, none at the ends of lines."""
    rows = [
        {"worker": "fastmcp-worker-1", "username": "automation", "token": "secret-token"},
        {"worker": "w", "username": "", "token": "x"},
        {"worker": "w", "username": "a", "token": ""},
    ]
    assert to_table(rows, COLUMNS) == (
        " worker            username    token\n"
        " fastmcp-worker-1  automation  secret-token\n"
        " w                             x\n"
        " w                 a"
    )


def test_cells_show_nothing_for_none_and_the_first_items_of_a_list() -> None:
    """No cell grows with a list; an item can no more forge a line than a text."""
    rows = [
        {"a": None, "b": ["x"], "c": 0},
        {"a": "None", "b": [], "c": False},
        {"a": "", "b": ["x", "y\n", 3, 4, 5], "c": None},
    ]
    assert to_table(rows, ("a", "b", "c")).splitlines() == [
        " a     b           c",
        "       x           0",
        " None              False",
        "       x y\\n 3 +2",
    ]


def test_a_summary_shows_the_first_paragraph_on_one_line() -> None:
    """Descriptions of tools go on for pages."""
    rows = [{"name": "a", "about": "Say\n  something.\n\nArgs:\n  x"}, {"name": "b", "about": None}, {"name": "c"}]
    assert to_table(rows, ("name", Summary("about"))) == " name  about\n a     Say something.\n b\n c"


def test_an_empty_table_is_its_header() -> None:
    """Without rows the header is printed."""
    assert to_text([], COLUMNS) == " worker  username  token"


def test_columns_are_aligned_in_the_cells_of_a_terminal() -> None:
    """Wide characters count as two cells, combining ones as none."""
    rows = [{"worker": "日本", "username": "e\u0301", "token": "1"}, {"worker": "abcd", "username": "e", "token": "2"}]
    assert to_table(rows, COLUMNS).splitlines()[1:] == [
        " 日本    e\u0301         1",
        " abcd    e         2",
    ]
    assert [cell_width(text) for text in ("日本", "e\u0301", "abc", "🙂")] == [4, 1, 3, 2]


def test_values_can_neither_forge_lines_nor_command_the_terminal() -> None:
    """Newlines and escapes in a cell show as what they are; markup is text."""
    rows = [{"worker": "w\nx", "username": "\x1b]0;t\x07\u202e", "token": "[red]x"}]
    assert to_table(rows, COLUMNS) == (" worker  username            token\n w\\nx    \\x1b]0;t\\x07\\u202e  [red]x")


def test_long_values_are_neither_cut_nor_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of the terminal doesn't matter."""
    monkeypatch.setenv("COLUMNS", "20")
    token = "x" * 1000
    assert to_table([{"token": token}], ["token"]) == f" token\n {token}"
    assert json.loads(to_json({"token": token})) == {"token": token}


def test_text_is_printed_as_it_is() -> None:
    """Lines and tabs of a text stay, what else a terminal acts on is escaped."""
    assert to_text("a\n\tb [bold] \x1b[1m\r\x00\ud800") == "a\n\tb [bold] \\x1b[1m\\r\\x00\\ud800"


@pytest.mark.parametrize(("data", "text"), [(False, "false"), (None, "null"), ({}, "{}"), ([], "[]"), (0, "0")])
def test_false_and_empty_results_are_printed(data: object, text: str) -> None:
    """Nothing that is a result prints as nothing."""
    assert to_text(data) == text


def test_words_in_messages_are_short_and_printable() -> None:
    """A message quotes at most 64 characters of what was typed."""
    assert quote_for_message("a\x1bb") == "'a\\x1bb'"
    assert quote_for_message("x" * 65) == f"'{'x' * 64}…'"
    assert escape_line(17) == "17"
    assert escape_line("a\tb\n") == "a\\tb\\n"
