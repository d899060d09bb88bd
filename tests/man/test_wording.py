"""README, manual pages, messages, docstrings, comments and the names of tests use the terms of the field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.examples import DOCUMENTS, ROOT

FOLDERS = ("man", "models", "shell", "tests", "worker")
IDIOMS = {
    r"tells? of|told of|(is|are) told": "report, describe, notify",
    r"pass(ed|es)? over": "skip",
    r"anew": "again",
    r"(?<!there )(is|are) (?-i:none)(?! of)": "is not a …",
    r"lies|lie (in|at|below|under|beside|there)\b": "is stored, is in",
    r"sees? to|see to it": "check, ensure",
    r"can't stand here": "is not valid here",
    r"(can|can't|can not|cannot|could) be had": "is available",
    r"mend(s|ed|ing)?": "fix",
    r"let in|lets (whoever|who|anybody|nobody) in": "authorized, accepted",
    r"given up|gave up|gives up": "abandoned, dropped",
    r"somebody knocked": "a connection was refused",
    r"of another make": "of another kind",
    r"comes? to its end": "ends",
    r"goes by": "is known as, depends on",
}
_IDIOM = re.compile("|".join(rf"(?:\b(?:{each})\b)" for each in IDIOMS), re.IGNORECASE)


def sources() -> list[str]:
    """Return the paths of all modules but this one, which lists the idioms."""
    found = [ROOT / "__init__.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path != Path(__file__))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the strings, comments and names of functions of a module, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name.replace("_", " ")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def idioms(lines: Iterator[tuple[int, str]]) -> list[str]:
    """Return the idioms in lines, each with its line number."""
    return [f"{number}: {match.group()}" for number, line in lines for match in _IDIOM.finditer(line)]


@pytest.mark.parametrize("path", sources())
def test_messages_and_docstrings_use_the_terms_of_the_field(path: str) -> None:
    """What an engineer would have to guess is said in the field's own word."""
    assert idioms(texts((ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pages_use_the_terms_of_the_field(document: str) -> None:
    """Across line ends too."""
    text = DOCUMENTS[document].read_text(encoding="utf-8")
    assert idioms(iter([(0, " ".join(text.split()))])) == []


@pytest.mark.parametrize("idiom", ["the line tells of it", "rows were passed over", "a new one lies there"])
def test_idioms_are_found(idiom: str) -> None:
    """The patterns match what they are for."""
    assert idioms(iter([(1, idiom)])) != []
