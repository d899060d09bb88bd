"""Pipe functions, which may follow a `|`: picle's, with options that convert typed text.

They are only declared here; `shell/output/pipeline.py` runs them. This module imports picle, which takes
about 0.2 s: it is loaded when a pipe is first used. Where a type here differs from picle's, picle's rejects its own
default of None, or no typed text converts to it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from picle.models import (
    JsonOutputterModel,
    KvOutputterModel,
    PipeFunctionsModel,
    PprintOutputterModel,
    RichTableOutputter,
    TabulateTableFmt,
    TabulateTableOutputter,
    YamlOutputterModel,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, StringConstraints
from pydantic_core import PydanticCustomError

from .base import branch

_SWITCH: dict[str, Any] = {"presence": True}
_SEPARATORS = re.compile(r"(\s*,\s*)(\s*:\s*)")


def _split_names(value: Any) -> Any:
    """Split column names as they are typed: `token,age`."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _split_separators(value: Any) -> Any:
    """Split separators as they are typed: `,: ` is `,` between items and `: ` after a key."""
    # picle takes everything up to the first comma as the separator of items: its own example gives no valid JSON.
    match = _SEPARATORS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("json_separators", "must be a comma and a colon with optional blanks, like ',: '")
    return match.groups()


_Names = Annotated[list[str] | None, BeforeValidator(_split_names)]
_Text = Annotated[str, StringConstraints(min_length=1)]


class JsonOptions(JsonOutputterModel):
    """Options of `| json`."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    separators: Annotated[tuple[str, str] | None, BeforeValidator(_split_separators)] = Field(  # type: ignore[assignment]
        default=None, description="Separators of items and of keys, e.g. ',: '"
    )


class NestedOptions(BaseModel):
    """Options of `| nested`: picle's, without those that no typed text can express."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    initial_indent: Annotated[int, Field(ge=0, le=200)] = Field(
        default=0, description="Initial indentation level for nested output", alias="initial-indent"
    )
    with_tables: bool = Field(
        default=False,
        description="Whether to format output in nested tables",
        alias="with-tables",
        json_schema_extra=_SWITCH,
    )
    tablefmt: TabulateTableFmt = Field(default=TabulateTableFmt.simple, description="Table format")


class TableOptions(TabulateTableOutputter):
    """Options of `| table`."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    tablefmt: TabulateTableFmt = Field(default=TabulateTableFmt.grid, description="Table format")
    headers: _Names = Field(default=None, description="Columns to show, separated by commas")  # type: ignore[assignment]
    headers_exclude: _Names = Field(  # type: ignore[assignment]
        default=None, description="Columns to drop, separated by commas", alias="headers-exclude"
    )
    maxcolwidths: PositiveInt | None = Field(  # type: ignore[assignment]
        default=None, description="Width at which a column's text is wrapped"
    )
    showindex: bool | None = Field(  # type: ignore[assignment]
        default=None, description="Number the rows", json_schema_extra=_SWITCH
    )
    reverse: bool | None = Field(  # type: ignore[assignment]
        default=None, description="Sort in reverse order", json_schema_extra=_SWITCH
    )


class PlainTableOptions(RichTableOutputter):
    """Options of `| rich-table`."""

    model_config = ConfigDict(extra="forbid")

    headers: _Names = Field(default=None, description="Columns to show, separated by commas")  # type: ignore[assignment]


class Pipes(PipeFunctionsModel):
    """The pipe functions."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    include: _Text | None = Field(
        default=None, description="Keep the lines that contain a text", json_schema_extra={"value": "text"}
    )
    exclude: _Text | None = Field(
        default=None, description="Drop the lines that contain a text", json_schema_extra={"value": "text"}
    )
    last: PositiveInt | None = Field(  # type: ignore[assignment]
        default=None, description="Keep this number of lines at the end", json_schema_extra={"value": "number"}
    )
    json_: JsonOptions = branch("Print as JSON", alias="json")
    yaml: YamlOutputterModel = branch("Print as YAML")
    pprint: PprintOutputterModel = branch("Print as a Python value")
    kv: KvOutputterModel = branch("Print one line for each value, after its keys")
    nested: NestedOptions = branch("Print indented")  # type: ignore[assignment]
    table: TableOptions = branch("Print as a table")
    rich_table: PlainTableOptions = branch("Print as a table without a frame", alias="rich-table")
    markdown: bool | None = Field(
        default=None, description="Print the text without rendering its Markdown", json_schema_extra=_SWITCH
    )
    save: _Text | None = Field(  # type: ignore[assignment]
        default=None,
        description="Print, and write to a file that only you can read",
        json_schema_extra={"value": "file"},
    )
