"""The mutants of a source: Cosmic Ray's operators and the edits of this room, one change each."""

from __future__ import annotations

import difflib
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from mutants.edits import Position, find_edits, replace
from parso.tree import NodeOrLeaf

_LEFT_OUT = ("NoOp", "VariableReplacer", "VariableInserter", "ExceptionReplacer")
"""Operators that need arguments of their own; exceptions get an edit that isn't noticed by the name alone."""


@dataclass(frozen=True)
class Mutant:
    """One changed source. `line` is the first that differs, `before` and `after` are what differs, without margins."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    source: str = field(repr=False)


_Change = Callable[[], str | None]


@dataclass(frozen=True)
class _Site:
    """A place and a kind of change, and the sources that it can become."""

    line: int
    kind: str
    variants: list[_Change]


def choose_mutants(root: Path, files: list[str], count: int, chance: random.Random) -> tuple[list[Mutant], int]:
    """Choose up to `count` places of some files by chance, and one change for each; also return how many there are."""
    places = [(file, site) for file in files for site in _find_sites((root / file).read_text(encoding="utf-8"))]
    chance.shuffle(places)
    chosen: list[Mutant] = []
    for file, site in places:
        if len(chosen) == count:
            break
        mutant = _make_mutant(file, (root / file).read_text(encoding="utf-8"), site.kind, chance.choice(site.variants))
        if mutant is not None:
            chosen.append(mutant)
    return sorted(chosen, key=lambda each: (each.file, each.line)), len(places)


def repeat_mutant(root: Path, file: str, line: int, before: str, after: str) -> Mutant | None:
    """Make a mutant of one changed line again, None where the line isn't there any more."""
    lines = (root / file).read_text(encoding="utf-8").splitlines(keepends=True)
    found = [index for index, text in enumerate(lines) if text.strip() == before]
    if not found:
        return None
    index = min(found, key=lambda each: abs(each + 1 - line))
    lines[index] = lines[index].replace(before, after)
    return Mutant(file, index + 1, "again", before, after, "".join(lines))


def _make_mutant(file: str, source: str, kind: str, make: _Change) -> Mutant | None:
    """Return the mutant, or None if nothing changes or the result does not compile."""
    changed = make()
    if changed is None or changed == source:
        return None
    try:
        with warnings.catch_warnings(action="error"):
            compile(changed, file, "exec", dont_inherit=True)
    except (SyntaxWarning, SyntaxError, ValueError):
        return None
    old, new = source.splitlines(), changed.splitlines()
    first = next(index for index, pair in enumerate(zip([*old, ""], [*new, ""], strict=False)) if pair[0] != pair[1])
    lines = list(difflib.ndiff(old, new))
    before, after = (" ".join(each[2:].strip() for each in lines if each.startswith(sign)) for sign in ("- ", "+ "))
    return Mutant(file, first + 1, kind, before, after, changed)


def _find_sites(source: str) -> list[_Site]:
    nodes = list(ast_nodes(get_ast(source)))
    unseen = [*_find_unseen(nodes), *([] if "pydantic" in source else _find_annotations(nodes))]
    variants: dict[tuple[Position, str], list[_Change]] = defaultdict(list)
    for kind, start, change in [*_cosmic_changes(source, nodes), *_edits(source, nodes)]:
        if not any(begin <= start < end for begin, end in unseen):
            variants[start, kind].append(change)
    return [_Site(start[0], kind, changes) for (start, kind), changes in sorted(variants.items(), key=lambda x: x[0])]


def _cosmic_changes(source: str, nodes: list[NodeOrLeaf]) -> Iterator[tuple[str, Position, _Change]]:
    for name in cosmic_ray.plugins.operator_names():
        family = name.rpartition("/")[2]
        kind, _, change = family.partition("_")
        if kind in _LEFT_OUT or change.endswith(("_Is", "_IsNot")):
            continue
        operator: Operator = cosmic_ray.plugins.get_operator(name)()
        starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(starts):
            yield kind, start, partial(mutate_code, source, operator, occurrence)


def _edits(source: str, nodes: list[NodeOrLeaf]) -> Iterator[tuple[str, Position, _Change]]:
    for node in nodes:
        for kind, start, end, text in find_edits(node):
            yield kind, start, partial(replace, source, start, end, text)


def _find_unseen(nodes: list[NodeOrLeaf]) -> Iterator[tuple[Position, Position]]:
    """Find what only type checkers see: unions in annotations, imports for them; and the arguments of decorators."""
    for node in nodes:
        children = getattr(node, "children", [])
        first = children[0].get_code().strip() if children else ""
        if node.type == "decorator":
            yield children[1].start_pos, node.end_pos
        elif (
            first == "__slots__"
            or _is_union(node)
            or (first == "if" and children[1].get_code().strip() == "TYPE_CHECKING")
        ):
            yield node.start_pos, node.end_pos


def _find_annotations(nodes: list[NodeOrLeaf]) -> Iterator[tuple[Position, Position]]:
    """Find the annotations of variables and parameters, which only pydantic reads."""
    for node in nodes:
        if node.type in {"annassign", "tfpdef"}:
            colon = next(index for index, child in enumerate(node.children) if child.get_code().strip() == ":")
            yield node.children[colon + 1].start_pos, node.children[colon + 1].end_pos


def _is_union(node: NodeOrLeaf) -> bool:
    """Whether a node is the `|` of an annotation."""
    if node.get_first_leaf() is not node or node.get_code().strip() != "|":
        return False
    child, parent = node, node.parent
    while parent is not None:
        if parent.type in {"annassign", "tfpdef", "funcdef"}:
            before = parent.children[parent.children.index(child) - 1].get_code().strip()
            return before in ({"->"} if parent.type == "funcdef" else {":"})
        if parent.type in {"suite", "file_input"}:
            return False
        child, parent = parent, parent.parent
    return False
