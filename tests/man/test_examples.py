"""README.md and the manual's pages: their examples read as promised.

What has to be run is run by `tests/end_to_end/test_examples.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli.man.pages import list_pages
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from support import examples

README_COLUMNS, PAGE_COLUMNS = 100, 80
NOT_RUN = {
    "README.md": ["sets up the clone itself"],
    "man/pages/backup.md": ["needs age"],
    "man/pages/containers.md": [*["needs a container engine"] * 2, "needs a cluster"],
    "man/pages/contributing.md": ["runs the tests themselves"],
    "man/pages/fabric.md": [*["needs a NorFab broker"] * 3, "needs a NorFab worker's database"],
    "man/pages/mcp-clients.md": [
        "needs Codex",
        "another form than that of the other clients",
        "needs Gemini CLI",
        "needs mcp-remote, and serves until stdin ends",
    ],
    "man/pages/other-servers.md": ["needs a second machine"],
    "man/pages/performance.md": ["measures for minutes"],
    "man/pages/security.md": ["needs a second machine"] * 2,
    "man/pages/service.md": ["changes the machine", "needs the service", "changes the machine"],
    "man/pages/tokens.md": ["needs several workers", "needs a token"],
    "man/pages/tools.md": ["shows what these rules allow, beside tools of nornir"],
    "man/pages/upgrading.md": ["installs nfcli another time"] * 2,
}
MARKS = re.compile(r"|file: \S+|output|run-tests|not run: .+")


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
    assert [block.location for block in all_blocks() if not MARKS.fullmatch(block.mark)] == []


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
    """Return the YAML blocks: the files of a document that has an inventory together, others alone."""
    alone = [
        pytest.param([block], id=block.location)
        for block in all_blocks()
        if block.language == "yaml" and not block.file
    ]
    files = [[block for block in examples.blocks(document) if block.file] for document in examples.DOCUMENTS]
    return alone + [
        pytest.param(found, id=found[0].document)
        for found in files
        if any(block.file == "inventory.yaml" for block in found)
    ]


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
