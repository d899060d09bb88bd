"""Texts for MCP clients: what is dropped, where they end, and the scalars of nested values."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.worker.tools.texts import clean_line, clean_text, free_name, iter_mappings, iter_scalars, scalar_texts

TAG, FAMILY = "\U000e0041", "👩\u200d👩\u200d👧"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\tb", "a   b"),
        ("  one\n    two\n  three\n", "one\n  two\nthree"),
        ("one\n\n  two\n\ttwo", "one\n\ntwo\n  two"),
        (f"a\x1b[2J\x00\x85\ud800{TAG}b", "a[2Jb"),
        (FAMILY, FAMILY),
        ("", ""),
        (None, ""),
        (["a"], ""),
        (b"a", ""),
    ],
    ids=ascii,
)
def test_texts_have_no_indentation_and_nothing_invisible(text: Any, cleaned: str) -> None:
    """Lines stay; what is no text is empty."""
    assert clean_text(text) == cleaned
    assert clean_line(text) == " ".join(cleaned.split())


@pytest.mark.parametrize("limit", [3, 10])
def test_texts_end_at_the_limit(limit: int) -> None:
    """An ellipsis is the last of the characters; a text of exactly that length has none."""
    assert clean_text("x" * limit, limit) == "x" * limit
    assert clean_text("x" * (limit + 1), limit) == "x" * (limit - 1) + "…"
    assert clean_line("x" * (limit + 1), limit) == "x" * (limit - 1) + "…"
    assert clean_text("x" * 100_000, None) == "x" * 100_000


def test_invisible_text_uses_up_little_of_the_limit() -> None:
    """Up to three times as many such characters as may stay are dropped before the text is cut."""
    assert clean_text(TAG * 30 + "x" * 10, 10) == "x" * 10
    assert clean_text(TAG * 31 + "x" * 10, 10) == "x" * 9


def test_scalars_have_paths() -> None:
    """A key has the path of its mapping; null is left out."""
    found = list(iter_scalars({"a": [1, None, {"b": True}], 2: "x"}))
    a = (None, "a")
    assert found == [(None, "a"), (None, "2"), ((a, 0), 1), ((a, 2), "b"), (((a, 2), "b"), True), ((None, "2"), "x")]
    assert list(iter_scalars("x")) == [(None, "x")]
    assert list(iter_scalars(())) == []


@pytest.mark.parametrize(
    ("item", "texts"),
    [
        ("x", ["x"]),
        (5, ["5"]),
        (5.0, ["5.0", "5"]),
        (5.5, ["5.5"]),
        (True, ["True", "true"]),
        (False, ["False", "false"]),
    ],
)
def test_scalars_are_compared_in_all_notations(item: Any, texts: list[str]) -> None:
    """Those of JSON and of Python."""
    assert list(scalar_texts(item)) == texts


def test_mappings_are_found_at_any_depth() -> None:
    """The value itself is one of them."""
    assert list(iter_mappings({"a": [{"b": 1}, 2]})) == [{"a": [{"b": 1}, 2]}, {"b": 1}]
    assert list(iter_mappings("x")) == []


def test_taken_names_get_the_next_number() -> None:
    """The first has none."""
    assert free_name("a", {}) == "a"
    assert free_name("a", {"a": 1}) == "a (2)"
    assert free_name("a", {"a": 1, "a (2)": 1}) == "a (3)"
