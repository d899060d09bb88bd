"""What may follow a `|`: picle's pipe functions, with options that typed text can be given to.

Only the words are described here; `shell/output/pipeline.py` does the work. This module imports picle, which takes
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


def _names(value: Any) -> Any:
    """Split typed column names: `token,age`."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _separators(value: Any) -> Any:
    """Split typed separators: `,: ` is `,` between items and `: ` behind a key."""
    # picle takes everything up to the first comma for the separator of items: its own example gives no valid JSON.
    match = _SEPARATORS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("json_separators", "must be a comma and a colon, each with blanks as wanted: ',: '")
    return match.groups()


_Names = Annotated[list[str] | None, BeforeValidator(_names)]
_Text = Annotated[str, StringConstraints(min_length=1)]


class JsonOptions(JsonOutputterModel):
    """Options of `| json`."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    separators: Annotated[tuple[str, str] | None, BeforeValidator(_separators)] = Field(  # type: ignore[assignment]
        default=None, description="Separators of items and of keys, e.g. ',: '"
    )


class NestedOptions(BaseModel):
    """Options of `| nested`: picle's, without those that only Python code could give."""

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
        default=None, description="Columns to leave out, separated by commas", alias="headers-exclude"
    )
    maxcolwidths: PositiveInt | None = Field(  # type: ignore[assignment]
        default=None, description="Width at which a column's text is wrapped"
    )


class PlainTableOptions(RichTableOutputter):
    """Options of `| rich-table`."""

    model_config = ConfigDict(extra="forbid")

    headers: _Names = Field(default=None, description="Columns to show, separated by commas")  # type: ignore[assignment]


class Pipes(PipeFunctionsModel):
    """The functions behind a `|`."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    include: _Text | None = Field(default=None, description="Keep the lines that contain a text")
    exclude: _Text | None = Field(default=None, description="Leave out the lines that contain a text")
    last: PositiveInt | None = Field(default=None, description="Keep the last lines: how many")  # type: ignore[assignment]
    json_: JsonOptions = branch("Print as JSON", alias="json")
    yaml: YamlOutputterModel = branch("Print as YAML")
    pprint: PprintOutputterModel = branch("Print as Python shows it")
    kv: KvOutputterModel = branch("Print a line for each value, its keys before it")
    nested: NestedOptions = branch("Print indented")  # type: ignore[assignment]
    table: TableOptions = branch("Print as a table")
    rich_table: PlainTableOptions = branch("Print as a table without a frame", alias="rich-table")
    markdown: bool | None = Field(default=None, description="Print text as it is", json_schema_extra=_SWITCH)
    save: _Text | None = Field(  # type: ignore[assignment]
        default=None, description="Write to a file that only you can read, and print"
    )
