"""The mutants of a source: Cosmic Ray's operators and the edits of this room, one change each."""

from __future__ import annotations

import difflib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from mutants.edits import Position, find_edits, replace
from parso.tree import NodeOrLeaf

_LEFT_OUT = ("VariableReplacer", "VariableInserter", "ExceptionReplacer")
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


@dataclass(frozen=True)
class _Site:
    """A place and a kind of change, and the sources that it can become."""

    line: int
    kind: str
    variants: list[Callable[[], str | None]]


def choose_mutants(root: Path, files: list[str], count: int, chance: random.Random) -> list[Mutant]:
    """Choose up to `count` places of some files by chance, and one change for each of them."""
    places = [(file, site) for file in files for site in _find_sites((root / file).read_text(encoding="utf-8"))]
    chance.shuffle(places)
    chosen: list[Mutant] = []
    for file, site in places:
        if len(chosen) == count:
            break
        mutant = _make_mutant(file, (root / file).read_text(encoding="utf-8"), site.kind, chance.choice(site.variants))
        if mutant is not None:
            chosen.append(mutant)
    return sorted(chosen, key=lambda each: (each.file, each.line))


def count_places(root: Path, files: list[str]) -> int:
    """Count the places of some files."""
    return sum(len(_find_sites((root / file).read_text(encoding="utf-8"))) for file in files)


def _make_mutant(file: str, source: str, kind: str, make: Callable[[], str | None]) -> Mutant | None:
    """Return the mutant, or None if nothing changes or the result does not compile."""
    changed = make()
    if changed is None or changed == source:
        return None
    try:
        compile(changed, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    old, new = source.splitlines(), changed.splitlines()
    first = next(index for index, pair in enumerate(zip([*old, ""], [*new, ""], strict=False)) if pair[0] != pair[1])
    lines = list(difflib.ndiff(old, new))
    before, after = (" ".join(each[2:].strip() for each in lines if each.startswith(sign)) for sign in ("- ", "+ "))
    return Mutant(file, first + 1, kind, before, after, changed)


def _find_sites(source: str) -> list[_Site]:
    variants: dict[tuple[Position, str], list[Callable[[], str | None]]] = defaultdict(list)
    for kind, position, make in [*_cosmic_changes(source), *_edits(source)]:
        variants[position, kind].append(make)
    return [_Site(position[0], kind, makes) for (position, kind), makes in sorted(variants.items(), key=lambda x: x[0])]


def _cosmic_changes(source: str) -> Iterator[tuple[str, Position, Callable[[], str | None]]]:
    nodes = list(ast_nodes(get_ast(source)))
    for name in cosmic_ray.plugins.operator_names():
        family = name.rpartition("/")[2]
        if family.startswith(_LEFT_OUT):
            continue
        operator: Operator = cosmic_ray.plugins.get_operator(name)()
        positions = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (node, start) in enumerate(positions):
            if not _has_no_effect(node):
                yield family.partition("_")[0], start, lambda o=operator, n=occurrence: mutate_code(source, o, n)


def _edits(source: str) -> Iterator[tuple[str, Position, Callable[[], str | None]]]:
    for node in ast_nodes(get_ast(source)):
        if not _has_no_effect(node):
            for kind, start, end, text in find_edits(node):
                yield kind, start, lambda s=start, e=end, t=text: replace(source, s, e, t)


def _has_no_effect(node: NodeOrLeaf) -> bool:
    """Whether a node is an annotation's `|`, in a decorator's arguments, or seen by type checkers and readers only."""
    is_union = node.get_code().strip() == "|"
    child, parent = node, node.parent
    while parent is not None:
        if is_union and parent.type in {"annassign", "tfpdef", "funcdef"} and not _is_value(parent, child):
            return True
        if parent.type == "decorator" or parent.get_code().lstrip().startswith(("if TYPE_CHECKING:", "__slots__ =")):
            return True
        if parent.type == "if_stmt" and parent.children[1].get_code().strip() == "TYPE_CHECKING":
            return True
        child, parent = parent, parent.parent
    return False


def _is_value(parent: NodeOrLeaf, child: NodeOrLeaf) -> bool:
    """Whether a node belongs to a value or a body rather than to an annotation."""
    if parent.type == "funcdef":
        return child.type in {"suite", "parameters"} or child is parent.children[-1]
    before = parent.children[: parent.children.index(child)]
    return any(each.get_code().strip() == "=" for each in before)
