"""Small faults that Cosmic Ray doesn't make: a statement, an element or an argument that is missing, another name."""

from __future__ import annotations

from collections.abc import Iterator

from parso.tree import BaseNode, NodeOrLeaf

Position = tuple[int, int]
Edit = tuple[str, Position, Position, str]
"""A kind of fault, where the replaced text begins and ends, and the text that stands there instead."""

_CALLS = ("atom_expr", "power")
_DISPLAYS = {"testlist_comp", "dictorsetmaker", "arglist", "testlist_star_expr"}
_DISPLAY_PARENTS = {"atom", "trailer"}


def find_edits(node: NodeOrLeaf) -> Iterator[Edit]:
    """Find the faults that a node allows."""
    if node.type == "simple_stmt" and isinstance(node, BaseNode):
        yield from _missing_statement(node)
    elif node.type == "return_stmt" and isinstance(node, BaseNode) and node.children[1].get_code().strip() != "None":
        yield "return nothing", *_span(node), "return None"
    elif node.type == "except_clause" and isinstance(node, BaseNode):
        yield "uncaught exception", *_span(node.children[1]), "()"
    elif node.type in _DISPLAYS and isinstance(node, BaseNode) and node.parent.type in _DISPLAY_PARENTS:
        yield from _missing_elements(node)
    elif node.type == "argument" and node.parent.type == "trailer" and _is_named(node):
        yield "missing argument", *_span(node), ""
    elif node.type == "string":
        yield from _other_text(node)


def replace(source: str, start: Position, end: Position, text: str) -> str:
    """Replace what stands between two positions, whose lines count from 1 and whose columns from 0."""
    lines = source.splitlines(keepends=True)
    before = "".join([*lines[: start[0] - 1], lines[start[0] - 1][: start[1]]])
    after = "".join([lines[end[0] - 1][end[1] :], *lines[end[0] :]])
    return before + text + after


def _missing_statement(node: BaseNode) -> Iterator[Edit]:
    statement = node.children[0]
    if statement.type in {"raise_stmt", "del_stmt"} or (
        statement.type in _CALLS and not statement.get_code().strip().startswith(("log.debug", "super().__init__"))
    ):
        yield "missing statement", *_span(statement), "pass"
    elif statement.type == "expr_stmt" and isinstance(statement, BaseNode):
        target, operator = (child.get_code().strip() for child in statement.children[:2])
        if operator.endswith("=") and (operator != "=" or "." in target or "[" in target):
            yield "missing statement", *_span(statement), "pass"


def _missing_elements(node: BaseNode) -> Iterator[Edit]:
    """Leave out an element of a tuple, list, set or dictionary, or a named argument of a call, with its comma."""
    begin, is_in_call = 0, node.type == "arglist"
    children = node.children
    if any(child.type in {"comp_for", "sync_comp_for"} for child in children):
        return
    for index, child in enumerate([*children, None]):
        if child is not None and child.get_code().strip() != ",":
            continue
        element = children[begin:index]
        if element and (not is_in_call or _is_named(element[0])):
            end = (child or element[-1]).end_pos
            yield "missing argument" if is_in_call else "missing element", element[0].start_pos, end, ""
        begin = index + 1


def _is_named(node: NodeOrLeaf) -> bool:
    return node.type == "argument" and isinstance(node, BaseNode) and node.children[1].get_code() == "="


def _other_text(node: NodeOrLeaf) -> Iterator[Edit]:
    """Change a name, a key or a format; texts with blanks are messages or docstrings."""
    text = node.get_code().strip()
    if not any(character.isspace() for character in text) and '"""' not in text and len(text) > len('""'):
        yield "other text", *_span(node), text[:-1] + "~" + text[-1]


def _span(node: NodeOrLeaf) -> tuple[Position, Position]:
    return node.start_pos, node.end_pos
