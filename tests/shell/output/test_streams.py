"""Output of long lists: in parts it is what it is as a whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.commands.base import LocalTime
from nfcli.models.commands.root import Root
from nfcli.shell.output.pipeline import Pipeline
from nfcli.shell.output.render import to_table
from nfcli.shell.output.streams import RowStream, TableStream
from nfcli.shell.syntax.lexer import split
from nfcli.shell.syntax.parser import Parser, Scope

COLUMNS = ("token", "count", LocalTime("creation"))
cells = (
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["2026-05-31T12:08:51.914919+02:00", "]", "["])
)
rows = st.fixed_dictionaries({}, optional={"token": cells, "count": cells, "creation": cells})
parts = st.lists(st.lists(rows, max_size=4), min_size=1, max_size=5)
pipes = st.sampled_from(
    [
        "| json",
        "| json indent 0",
        "| json indent 1 separators ' , : '",
        "| json | include token",
        "| json | exclude ] | include e",
        "| include 1",
        "| exclude 1 | exclude 2",
    ]
)


def pipeline(line: str) -> Pipeline:
    """Return the pipe functions behind a command."""
    parser = Parser([Scope("root", Root)])
    parser.feed_all(split(f"fastmcp auth list-tokens {line}"))
    parser.finish()
    return Pipeline(parser.stages)


def streamed(stream: RowStream, given_parts: list[list[dict[str, Any]]]) -> list[str]:
    """Return all lines of a stream."""
    return [line for part in given_parts for line in stream.lines(part)] + stream.end()


@settings(deadline=None, max_examples=150)
@given(pipes, parts)
def test_parts_give_the_lines_of_the_whole(line: str, given_parts: list[list[dict[str, Any]]]) -> None:
    """JSON to the last separator, and lines that are kept; widths of columns apart."""
    piped = pipeline(line)
    stream = piped.stream(COLUMNS)
    assert stream is not None
    whole = piped.run([row for part in given_parts for row in part], COLUMNS)
    squeezed = [" ".join(each.split()) for each in streamed(stream, given_parts)]
    assert squeezed == ([" ".join(each.split()) for each in whole.split("\n")] if whole else [])
    if "json" in line:
        again = piped.stream(COLUMNS)
        assert again is not None
        assert "\n".join(streamed(again, given_parts)) == whole


@given(st.lists(rows, max_size=5))
def test_one_part_is_the_table_to_the_blank(given_rows: list[dict[str, Any]]) -> None:
    """Lists of usual lengths look as ever."""
    assert "\n".join(streamed(TableStream(COLUMNS), [given_rows])) == to_table(given_rows, COLUMNS)


def test_a_column_gets_wider_and_never_narrower() -> None:
    """Cells are separated by two blanks, whatever comes later."""
    stream = TableStream(("a", "b"))
    lines = [stream.lines([{"a": "x" * width, "b": "end"}])[-1] for width in (3, 9, 5)]
    assert [line.index("end") for line in lines] == [6, 12, 12]
    assert all(second >= first for first, second in pairwise(line.index("end") for line in lines))


@pytest.mark.parametrize("line", ["| yaml", "| table", "| rich-table", "| json | last 2", "| save /tmp/x", "| nested"])
def test_functions_that_need_all_rows_have_no_stream(line: str) -> None:
    """They get the whole list."""
    assert pipeline(line).stream(COLUMNS) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-05-31T12:08:51.914919+02:00", "2026-05-31 12:08:51.914919"),
        ("2026-05-31T12:08:51.914919Z", "2026-05-31 12:08:51.914919"),
        (None, "None"),
        ("2026-05-31 12:08:51.914919", "2026-05-31 12:08:51.914919"),
        ("None", "None"),
        ("a\x1bb", "a\\x1bb"),
        (5, "5"),
    ],
)
def test_tables_show_times_without_their_offset(value: object, shown: str) -> None:
    """Those of NorFab's workers as they are."""
    assert to_table([{"creation": value}], [LocalTime("creation")]).split("\n")[1] == f" {shown}"
