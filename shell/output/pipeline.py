"""Pipe functions: filters select lines of text, outputters turn data into text.

A filter takes the text that would be printed; an outputter takes data, so it has to come before any filter. This module
loads picle, tabulate and PyYAML: it is imported when a pipe is first used.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from tabulate import tabulate

from ...models.commands.base import LocalTime
from ...models.commands.pipes import Pipes
from ...models.environment.private_files import make_private_folder, write_private
from ...models.errors import NfcliError, UsageError, validation_messages
from ..syntax.parser import Stage
from ..text import escape_line, quote_for_message
from .render import escape_json, local_time, to_table, to_text
from .streams import FilteredStream, JsonStream, RowStream, TableStream
from .yaml_texts import mark_texts

Rows = list[dict[str, Any]]

_TABLES = frozenset({"table", "rich_table"})
_PIPE_MARKUP = {"github": r"\|", "pipe": r"\|", "jira": r"\|", "orgtbl": r"\vert{}", "mediawiki": "{{!}}"}
"""What stands for a `|` in a cell of the formats that separate cells by it."""


class Pipeline:
    """The pipe functions behind a command, checked before the command runs.

    Raises:
        UsageError: a value or an option breaks a rule, or an outputter comes after a function that returns text.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._steps = [(stage, _options(stage)) for stage in stages]
        text_from = ""
        for stage in stages:
            if stage.options is not None and text_from:
                raise UsageError(f"{stage.name}: needs data, but {text_from} before it returns text")
            if stage.key != "save":
                text_from = text_from or stage.name

    def run(self, data: Any, columns: Sequence[str]) -> str:
        """Pass data through all functions; return the resulting text.

        Raises:
            UsageError: the command returned text where an outputter needs data, or an option names an unknown column.
            NfcliError: the file to save to cannot be written.
        """
        value = data
        for stage, options in self._steps:
            if stage.options is None:
                text = _FILTERS[stage.key](to_text(value, columns), getattr(options, stage.key))
                value = value if stage.key == "save" else text
            elif isinstance(value, str):
                raise UsageError(f"{stage.name}: needs data, but the command returns text")
            else:
                value = _OUTPUTTERS[stage.key](_as_shown(value, columns) if stage.key in _TABLES else value, options)
        return to_text(value, columns)

    def stream(self, columns: Sequence[str]) -> RowStream | None:
        """Return a stream that gives for rows what `run` does; None where the functions need all rows at once."""
        steps = self._steps
        stream: RowStream = TableStream(columns)
        if steps and steps[0][0].key == "json_":
            options = dict(steps[0][1])
            stream = JsonStream(lambda rows: _OUTPUTTERS["json_"](rows, options), _item_separator(options))
            steps = steps[1:]
        for stage, options_model in steps:
            if stage.key not in _LINE_FILTERS:
                return None
            stream = FilteredStream(stream, _LINE_FILTERS[stage.key], getattr(options_model, stage.key))
        return stream


def _item_separator(options: Mapping[str, Any]) -> str:
    return str((options.get("separators") or [","])[0])


def _as_shown(data: Any, columns: Sequence[str]) -> Any:
    """Return a table's data with times as tables show them."""
    times = {column for column in columns if isinstance(column, LocalTime)}
    if not times or not isinstance(data, list):
        return data
    return [{key: local_time(row[key]) if key in times else row[key] for key in row} for row in data]


def _options(stage: Stage) -> BaseModel:
    model = stage.options or Pipes
    try:
        return model.model_validate_strings(stage.values, by_alias=True, by_name=True)
    except ValidationError as error:
        lines = [line.removeprefix(f"{stage.key}: ") for line in validation_messages(error, model)]
        raise UsageError("; ".join(f"{stage.name}: {line}" for line in lines)) from None


def _save(text: str, name: str) -> str:
    """Write the text to a file of mode 0600, creating its folders and replacing an existing file."""
    path = Path(name).expanduser()
    try:
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise NfcliError(f"save: {escape_line(path)} exists and is not a regular file: choose another name")
        if not path.parent.exists():
            make_private_folder(path.parent, parents=True)
        write_private(path, f"{text}\n".encode("utf-8", "backslashreplace"))
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NfcliError(f"save: cannot write {escape_line(path)}: {reason}") from error
    return text


def _yaml(data: Any, options: Any) -> str:
    given = {**dict(options), "width": options.width or math.inf}
    return str(Pipes.outputter_yaml(mark_texts(data), **given)).rstrip("\n")


def _table(data: Any, options: Any) -> str:
    rows, columns = _select(data, options.headers, options.sortby, is_reversed=bool(options.reverse))
    columns = [column for column in columns if column not in (options.headers_exclude or ())]
    return _tabulate(
        rows,
        columns,
        options.tablefmt.value,
        showindex=range(1, len(rows) + 1) if options.showindex else False,
        maxcolwidths=options.maxcolwidths,
    )


def _rich_table(data: Any, options: Any) -> str:
    rows, columns = _select(data, options.headers, options.sortby)
    title = [] if options.title is None else [f" {escape_line(options.title)}"]
    return "\n".join([*title, to_table([{key: _cell_text(row[key]) for key in row} for row in rows], columns)])


def _nested(data: Any, options: Any) -> str:
    value = _escape_texts(data)
    if isinstance(value, Mapping):
        value = dict(sorted(value.items()))
    table_format = options.tablefmt.value if options.with_tables else None
    return "\n".join(_nest(value, options.initial_indent, "", table_format))


def _nest(value: Any, indent: int, prefix: str, table_format: str | None) -> list[str]:
    """Return picle's nested layout of a value: keys with a colon, values indented by four, list items with a dash."""
    blank = " " * indent
    if table_format and _is_table(value):
        columns = list(dict.fromkeys(key for row in value for key in row))
        return [f"{blank}  {line}" for line in _tabulate(value, columns, table_format).split("\n")]
    lines = []
    if isinstance(value, Mapping):
        lines = [f"{blank}----------"] if indent else []
        for key, below in value.items():
            lines.append(f"{blank}{prefix}{key}:")
            lines += _nest(below, indent + 4, "", table_format)
        return lines
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Mapping | list | tuple):
                lines.append(f"{blank}|_")
                lines += _nest(item, indent + 2, "" if isinstance(item, Mapping) else "- ", table_format)
            else:
                lines += _nest(item, indent, "- ", table_format)
        return lines
    return [f"{blank}{prefix}{value}"]


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(row, Mapping) and not any(isinstance(cell, Mapping) for cell in row.values()) for row in value
        )
    )


def _tabulate(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], table_format: str, **options: Any) -> str:
    # disable_numparse: the token 000123 must not come out as 123.
    pipe = _PIPE_MARKUP.get(table_format, "|")
    cells = [[_cell_text(row.get(column, "")).replace("|", pipe) for column in columns] for row in rows]
    headers = [escape_line(column).replace("|", pipe) for column in columns]
    return str(tabulate(cells, headers=headers, tablefmt=table_format, disable_numparse=True, **options))


def _select(
    data: Any, headers: Sequence[str] | None, sort_by: str | None, *, is_reversed: bool = False
) -> tuple[Rows, list[str]]:
    """Return data as rows, sorted on demand, and the columns to show."""
    rows = _rows(data)
    known = list(dict.fromkeys(key for row in rows for key in row))
    unknown = [name for name in (*(headers or ()), *([sort_by] if sort_by else [])) if name not in known]
    if unknown and rows:
        raise UsageError(
            f"unknown column {quote_for_message(unknown[0])}: expected {', '.join(map(escape_line, known))}"
        )
    if sort_by:
        rows = sorted(rows, key=lambda row: str(row.get(sort_by, "")), reverse=is_reversed)
    return rows, list(headers or known)


def _rows(data: Any) -> Rows:
    """Return data as rows: one for each record, or for each worker whose value is no list of records."""
    if isinstance(data, list):
        return [row if isinstance(row, dict) else {"value": row} for row in data]
    rows: Rows = []
    for worker, value in data.items() if isinstance(data, dict) else [("", data)]:
        records = value if isinstance(value, list) else [value]
        rows += [{"worker": worker, **(item if isinstance(item, dict) else {"result": item})} for item in records]
    return rows


def _keep_lines(keeps: Callable[[str, str], bool], text: str, option: str) -> str:
    return "\n".join(line for line in text.split("\n") if keeps(line, option))


def _cell_text(value: Any) -> str:
    if isinstance(value, dict | list):
        return escape_line(json.dumps(value, ensure_ascii=False, default=str))
    return escape_line(value)


def _escape_texts(data: Any) -> Any:
    """Return data with each text in it escaped to one line, so that no value can pass for several."""
    if isinstance(data, str):
        return escape_line(data)
    if isinstance(data, Mapping):
        return {escape_line(key): _escape_texts(value) for key, value in data.items()}
    return [_escape_texts(item) for item in data] if isinstance(data, list | tuple) else data


_LINE_FILTERS: Mapping[str, Callable[[str, str], bool]] = {
    "include": lambda line, wanted: wanted in line,
    "exclude": lambda line, unwanted: unwanted not in line,
}
_FILTERS: Mapping[str, Callable[[str, Any], str]] = {
    **{key: partial(_keep_lines, keeps) for key, keeps in _LINE_FILTERS.items()},
    "last": lambda text, count: "\n".join(text.split("\n")[-count:]),
    "markdown": lambda text, _: text,  # rendering it would drop the `_` and `*` of names and tokens
    "save": _save,
}
_OUTPUTTERS: Mapping[str, Callable[[Any, Any], str]] = {
    "json_": lambda data, options: escape_json(str(Pipes.outputter_json(data, **dict(options)))),
    "yaml": _yaml,
    "pprint": lambda data, options: str(Pipes.outputter_pprint(data, **dict(options))),
    "kv": lambda data, options: str(Pipes.outputter_kv(_escape_texts(data), **dict(options))),
    "nested": _nested,
    "table": _table,
    "rich_table": _rich_table,
}
