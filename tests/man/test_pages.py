"""The manual's pages: listed, printed, completed from the schema."""

from pathlib import Path

import pytest

from nfcli.man.pages import inventory_keys, list_pages, read_page
from nfcli.models.errors import UsageError
from nfcli.models.inventory.schema import Inventory
from nfcli.models.inventory.validation import describe

KEYS_MARKER = "<!-- inventory-keys -->"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three pages and another file."""
    (tmp_path / "tokens.md").write_text("\n# Bearer tokens\n\nA line\n", encoding="utf-8")
    (tmp_path / "security.md").write_text("no heading", encoding="utf-8")
    page = f"# Inventory\n\n  <!-- tested: yes -->\nBefore\n{KEYS_MARKER}\nAfter {KEYS_MARKER}\n<!-- a --> word\n\n"
    (tmp_path / "inventory.md").write_text(page, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("# No page", encoding="utf-8")
    return tmp_path


def test_pages_are_listed_by_topic_with_their_titles(folder: Path) -> None:
    """A page without a heading is listed by its topic."""
    assert list_pages(folder) == [
        ("inventory", "Inventory"),
        ("security", "security"),
        ("tokens", "Bearer tokens"),
    ]


def test_a_page_is_printed_as_it_is_written(folder: Path) -> None:
    """Only blank lines at its ends are left out."""
    assert read_page("tokens", folder) == "# Bearer tokens\n\nA line"


def test_the_keys_marker_is_replaced_and_other_comments_are_left_out(folder: Path) -> None:
    """Both only where the comment is the whole line."""
    assert read_page("inventory", folder).splitlines() == [
        "# Inventory",
        "",
        "Before",
        *inventory_keys(),
        f"After {KEYS_MARKER}",
        "<!-- a --> word",
    ]


def test_the_list_of_keys_has_every_key_of_the_schema() -> None:
    """Path, then indented type and default, and what it means; no line is too long for a small terminal."""
    lines = inventory_keys()
    starts = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    entries = [lines[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    assert [(key, " ".join(line.removeprefix("    ") for line in rest)) for key, *rest in entries] == [
        (key, f"{kind}; {f'default: {default}' if default else 'required'} {description}")
        for key, kind, default, description in describe(Inventory)
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("tokns", "unknown page 'tokns': expected tokens, inventory, security"),
        ("../tokens", "unknown page '../tokens': expected tokens, inventory, security"),
        ("", "unknown page '': expected inventory, security, tokens"),
        ("notes", "unknown page 'notes': expected inventory, security, tokens"),
    ],
)
def test_an_unknown_topic_is_refused_with_the_topics_there_are(folder: Path, topic: str, message: str) -> None:
    """Those that resemble it come first; a topic is a name from the list, never a path."""
    with pytest.raises(UsageError) as caught:
        read_page(topic, folder)
    assert str(caught.value) == message


def test_without_pages_the_refusal_says_so(tmp_path: Path) -> None:
    """A broken installation gives one line as well."""
    with pytest.raises(UsageError, match="unknown page 'tokens': expected nothing"):
        read_page("tokens", tmp_path / "missing")


def test_every_page_of_the_package_has_a_title_and_a_text() -> None:
    """What `man page` lists can be read, and no marker is left in it."""
    for topic, title in list_pages():
        lines = read_page(topic).splitlines()
        assert lines[0] == f"# {title}"
        assert KEYS_MARKER not in lines


def test_beginning_of_a_topic_lists_that_first() -> None:
    """However little of it was typed."""
    with pytest.raises(UsageError, match=r"^unknown page 'inv': expected inventory, "):
        read_page("inv")
