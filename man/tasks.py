"""Task documentation as plain text, from the result of `list_tasks`: `man tasks [name]`.

The entries may come from workers of any implementation: missing keys are tolerated, and control characters removed.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..models.commands.schemas.definitions import TaskDefinition
from ..models.errors import UsageError
from .suggestions import unknown_name

TaskEntry = Mapping[str, Any]
Schema = Mapping[str, Any]

_MAX_NESTING = 6
_INDENT = "    "


def render_tasks(tasks: Iterable[TaskDefinition], name: str | None = None) -> str:
    """Describe the task `name`, or without a name list all tasks with the first line of their descriptions.

    Where not all workers have a task, or not with the same arguments, the text says so.

    Returns lines joined by newlines, the last without one; lines are never cut or wrapped.

    Raises:
        UsageError: no task has that name; lists the names.
    """
    by_name = {task.name: task for task in tasks}
    if name is None:
        return "\n".join(aligned([(_plain(task), _summary(by_name[task])) for task in sorted(by_name)]))
    if name not in by_name:
        raise UsageError(unknown_name("task", name, sorted(by_name)))
    return "\n".join(_task_lines(name, by_name[name]))


def _summary(task: TaskDefinition) -> str:
    where = "" if task.is_everywhere else f"(on {_names(task.workers)})"
    return " ".join(filter(None, [*_description(task.entry)[:1], where]))


def _task_lines(name: str, task: TaskDefinition) -> list[str]:
    entry = task.entry
    lines = [_plain(name), *_indented(_description(entry))]
    if not task.is_everywhere:
        lines += ["", "workers", *_indented([f"{_names(task.workers)}; the others don't have it"])]
    if len(task.versions) > 1:
        lines += ["", "versions", *_indented([f"its arguments differ; these are of {_names(task.workers[:1])}"])]
    arguments = _arguments(_mapping(entry.get("inputSchema")))
    lines += ["", "arguments (* required)" if arguments else "arguments", *_indented(aligned(arguments) or ["none"])]
    lines += ["", "result", *_indented(aligned([_result(_mapping(entry.get("outputSchema")))]))]
    published = "yes" if entry.get("mcp", False) is not False else "no"
    lines += [*("", "effect", *_indented([effect]))] if (effect := _effect(task)) else []
    return [*lines, "", "MCP tool", *_indented([published])]


def _effect(task: TaskDefinition) -> str:
    """Return what the author says that a task does to what it is run on, empty if nothing."""
    if task.is_destructive:
        return "may destroy something: in scripts, and where nobody can be asked, add the word yes"
    return "only reads" if task.is_read_only else ""


def _arguments(schema: Schema) -> list[tuple[str, ...]]:
    required, definitions = _sequence(schema.get("required")), _mapping(schema.get("$defs"))
    rows: list[tuple[str, ...]] = []
    for name, value in _mapping(schema.get("properties")).items():
        argument = _mapping(value)
        text = _one_line(argument.get("description"))
        if argument.get("default") is not None:
            text += f", default {_literal(argument['default'])}"
        mark = "*" if name in required else ""
        rows.append((mark + _plain(str(name)), _type(argument, definitions), text.removeprefix(", ")))
    return rows


def _result(schema: Schema) -> tuple[str, ...]:
    value = _mapping(_mapping(schema.get("properties")).get("result"))
    members = [_mapping(member) for member in _sequence(value.get("anyOf"))]
    text = next((str(part["description"]) for part in (value, *members) if part.get("description")), "")
    return _type(value, _mapping(schema.get("$defs"))), _one_line(text)


def _type(schema: Schema, definitions: Schema, depth: int = 0) -> str:
    """Return a JSON Schema in a few words, `any` where it is empty or nested too deeply."""
    if depth > _MAX_NESTING:
        return "any"
    if "$ref" in schema:
        target = str(schema["$ref"]).rsplit("/", maxsplit=1)[-1]
        return _type(_mapping(definitions.get(target)), definitions, depth + 1)
    if "const" in schema or schema.get("enum"):
        return " or ".join(_literal(value) for value in _sequence(schema.get("enum")) or [schema.get("const")])
    alternatives = _sequence(schema.get("anyOf")) or _sequence(schema.get("oneOf"))
    if alternatives:
        words = [_type(_mapping(part), definitions, depth + 1) for part in alternatives]
        return " or ".join(dict.fromkeys(words))
    return _plain_type(schema, definitions, depth)


def _plain_type(schema: Schema, definitions: Schema, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(_type({**schema, "type": each}, definitions, depth + 1) for each in kind)
    if kind == "array":
        return f"list of {_type(_mapping(schema.get('items')), definitions, depth + 1)}"
    if kind == "object" and _mapping(schema.get("properties")):
        return f"{{{', '.join(_plain(str(key)) for key in schema['properties'])}}}"
    if kind == "object" and _mapping(schema.get("additionalProperties")):
        return f"object of {_type(schema['additionalProperties'], definitions, depth + 1)}"
    limits = " to ".join(str(schema[key]) for key in ("minimum", "maximum") if key in schema)
    both = "minimum" in schema and "maximum" in schema
    return _plain(f"{kind or 'any'} {limits}" if both else str(kind or "any"))


def _names(workers: Sequence[str]) -> str:
    return ", ".join(map(_plain, workers))


def _description(entry: TaskEntry) -> list[str]:
    text = inspect.cleandoc(str(entry.get("description") or ""))
    return [_plain(line).rstrip() for line in text.splitlines()]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"{_INDENT}{line}".rstrip() for line in lines]


def _literal(value: Any) -> str:
    """Return a value as JSON has it; texts are in single quotes, as the shell takes them."""
    return _one_line(f"'{value}'" if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _one_line(value: Any) -> str:
    return _plain(" ".join(str("" if value is None else value).split()))


def _plain(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def aligned(rows: Sequence[tuple[str, ...]], gap: str = "  ") -> list[str]:
    """Return one line for each row, with the cells of a column aligned; nothing is cut or wrapped."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
