"""README.md and the manual's pages: their examples read as promised, and what they quote stands in the code.

What has to be run is run by `tests/end_to_end/test_examples.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli.man.pages import list_pages
from nfcli.models import errors
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import load_inventory
from support import examples

README_COLUMNS, PAGE_COLUMNS = 100, 80
NOT_RUN = {
    "README.md": ["sets up the clone itself"],
    "man/pages/contributing.md": ["runs the tests themselves"],
    "man/pages/fabric.md": ["needs a NorFab broker", "needs a NorFab worker's database"],
    "man/pages/performance.md": ["measures for minutes"],
    "man/pages/security.md": ["needs a second machine"],
}
MARKS = re.compile(r"|file: \S+|output|run-tests|not run: .+")
PACKAGE = ("shell", "models", "worker", "man")

# Calls that make what a user reads: our errors, rules of fields, answers of the MCP server, lines of the log.
SAYING = {
    *(name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)),
    *("PydanticCustomError", "_refuse", "refusal", "_challenge", "fail", "_failure", "_error"),
    *("warning", "error", "critical"),
} - {"ProtocolError", "ValidationError"}
PLACE = "…"
# Parts of other lines, or said to programs only.
NOT_DOCUMENTED = ("echo was asked to fail", "empty (all interfaces)", "no worker has listed its tokens")


def all_blocks() -> list[Any]:
    """Return the blocks of all documents."""
    return [block for document in examples.DOCUMENTS for block in examples.blocks(document)]


def prose(document: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines outside blocks."""
    is_inside = False
    for number, line in enumerate(examples.DOCUMENTS[document].read_text(encoding="utf-8").splitlines(), start=1):
        is_inside ^= line.startswith("```")
        if not is_inside and not line.startswith("```"):
            yield number, line


def test_every_block_is_of_a_language_that_is_run_and_marked_as_known() -> None:
    """A misspelt language or mark would leave an example untested."""
    assert {block.language for block in all_blocks()} - set(examples.LANGUAGES) == set()
    assert [block.place for block in all_blocks() if not MARKS.fullmatch(block.mark)] == []


def test_only_the_listed_examples_are_not_run() -> None:
    """Each exception is agreed to here."""
    found: dict[str, list[str]] = {}
    for block in all_blocks():
        if block.mark.startswith("not run: "):
            found.setdefault(block.document, []).append(block.mark.removeprefix("not run: "))
    assert found == NOT_RUN


def test_the_readme_has_the_line_that_passes_the_tests() -> None:
    """The `.ci/run` script takes it from there."""
    (block,) = [block for block in all_blocks() if block.mark == "run-tests"]
    assert (block.document, block.text.count("\n")) == ("README.md", 1)


@pytest.mark.parametrize("document", examples.DOCUMENTS)
def test_prose_fits_the_page(document: str) -> None:
    """Pages are printed as they are, in terminals of any width."""
    limit = README_COLUMNS if document == "README.md" else PAGE_COLUMNS
    assert [number for number, line in prose(document) if len(line) > limit] == []


@pytest.mark.parametrize("document", examples.DOCUMENTS)
def test_pages_that_are_referred_to_exist(document: str) -> None:
    """Also across line ends."""
    text = " ".join(line.strip() for _, line in prose(document))
    topics = {topic for topic, _ in list_pages()}
    assert {word for word in re.findall(r"`(?:nfcli )?man page ([a-z-]+)`", text) if word not in topics} == set()


def inventory_cases() -> list[Any]:
    """Return the YAML blocks: the files of a document together, others alone."""
    alone = [
        pytest.param([block], id=block.place) for block in all_blocks() if block.language == "yaml" and not block.file
    ]
    files = [[block for block in examples.blocks(document) if block.file] for document in examples.DOCUMENTS]
    return alone + [pytest.param(found, id=found[0].document) for found in files if found]


@pytest.mark.parametrize("blocks", inventory_cases())
def test_inventories_load(blocks: list[Any], tmp_path: Path) -> None:
    """A block that isn't a whole inventory is one worker's file."""
    for block in blocks:
        file = tmp_path / (block.file or "inventory.yaml")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
    inventory = tmp_path / "inventory.yaml"
    if not block.file and block.text.startswith("service:"):
        worker = yaml.safe_load(block.text)
        inventory.write_text(yaml.safe_dump({"workers": {"w1": [worker]}}), encoding="utf-8")
    assert load_inventory(Environment(tmp_path, inventory)).workers


def _flat(node: ast.expr) -> str | None:
    """Return a text with `…` for what is put in at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[rsd]|\{\w+\}", PLACE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_flat(part) or PLACE if isinstance(part, ast.Constant) else PLACE for part in node.values)
    return None


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts in a tree; of a text that is put together, the whole and those that are put in."""
    flat = _flat(node) if isinstance(node, ast.expr) else None
    if flat is not None:
        yield flat
    parts = node.values if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node)
    for child in parts:
        if flat is None or isinstance(child, ast.FormattedValue):
            yield from _texts(child)


def package_trees() -> list[ast.Module]:
    """Return the package's modules."""
    paths = [path for folder in PACKAGE for path in sorted((examples.ROOT / folder).rglob("*.py"))]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def said_texts() -> set[str]:
    """Return the messages of the package that users can meet; at least three words."""
    found = set()
    for tree in package_trees():
        for node in ast.walk(tree):
            name = getattr(getattr(node, "func", None), "attr", None) or getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name in SAYING:
                found |= {text for argument in node.args for text in _texts(argument)}
    return {text for text in found if is_telling(text) and not text.startswith(NOT_DOCUMENTED)}


def is_telling(text: str) -> bool:
    """Whether a text is more than a part of a line."""
    return len(re.findall(r"\b[A-Za-z-]{2,}", text)) > 2 and " " in text


def entries() -> list[str]:
    """Return the error lines that the page explains."""
    page = examples.DOCUMENTS["man/pages/troubleshooting.md"].read_text(encoding="utf-8")
    items = re.split(r"^\* ", page, flags=re.MULTILINE)[1:]
    heads = [re.match(r"`[^`]+`(?:,\s+`[^`]+`)*", item) for item in items]
    assert all(heads)
    return [" ".join(line.split()) for head in heads if head for line in re.findall(r"`([^`]+)`", head[0])]


def fits(entry: str, text: str) -> bool:
    """Whether an entry shows a text of the code or a part of it, or a line that has the text in it."""
    text = " ".join(text.split())
    return _shows(entry, text) or (is_telling(text) and _shows(text, entry))


def _shows(pattern: str, text: str) -> bool:
    return _with_places(pattern).search(text) is not None


@cache
def _with_places(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split(PLACE))))


def test_every_error_line_of_the_troubleshooting_page_stands_in_the_code() -> None:
    """A line that was reworded is found by nobody."""
    texts = {text for tree in package_trees() for text in _texts(tree)}
    assert [entry for entry in entries() if not any(fits(entry, text) for text in texts)] == []


def test_every_error_line_of_the_code_is_on_the_troubleshooting_page() -> None:
    """A new one comes with an entry: cause and remedy."""
    listed = entries()
    assert sorted(text for text in said_texts() if not any(fits(entry, text) for entry in listed)) == []
