"""README, manual pages, messages, docstrings, comments and the names of tests use the terms of the field."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.examples import DOCUMENTS, ROOT

PLACES = ("__init__.py", "man", "models", "shell", "tests", "worker")
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


def sources(place: str) -> list[Path]:
    """Return a module, or those of a folder but this one, which lists the idioms."""
    found = [ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py")
    return sorted(path for path in found if path != Path(__file__))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the strings, comments and names of functions of a module, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name.replace("_", " ")
    for number, line in enumerate(source.splitlines(), start=1):
        _, mark, rest = line.partition("#")
        if mark:  # what follows is a comment, or part of a string
            yield number, rest


def idioms(lines: Iterator[tuple[int, str]]) -> list[str]:
    """Return the idioms in lines, each with its line number."""
    return [f"{number}: {match.group()}" for number, line in lines for match in _IDIOM.finditer(line)]


@pytest.mark.parametrize("place", PLACES)
def test_messages_and_docstrings_use_the_terms_of_the_field(place: str) -> None:
    """What an engineer would have to guess is said in the field's own word."""
    read = sources(place)
    assert read
    found = {path.relative_to(ROOT).as_posix(): idioms(texts(path.read_text(encoding="utf-8"))) for path in read}
    assert {path: breaches for path, breaches in found.items() if breaches} == {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pages_use_the_terms_of_the_field(document: str) -> None:
    """Across line ends too."""
    text = DOCUMENTS[document].read_text(encoding="utf-8")
    assert idioms(iter([(0, " ".join(text.split()))])) == []


@pytest.mark.parametrize("idiom", ["the line tells of it", "rows were passed over", "a new one lies there"])
def test_idioms_are_found(idiom: str) -> None:
    """The patterns match what they are for."""
    assert idioms(iter([(1, idiom)])) != []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\n# it lies there", ["2: lies"]),
        ("x = 1  # it lies there", ["1: lies"]),
        ("def f():\n    '''It is\n    told of.'''", ["2: is told"]),
        ("x = f'{y} is ' 'given up'", ["1: given up"]),
        ("def test_it_lies_there():\n    pass", ["1: lies"]),
        ("lies = mend(told.of)", []),
    ],
)
def test_strings_comments_and_names_of_functions_are_read(source: str, found: list[str]) -> None:
    """Other code is not: its names are those of the libraries as well."""
    assert idioms(texts(source)) == found
