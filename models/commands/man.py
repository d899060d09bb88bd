"""`man …`, the commands that print the command tree, tasks, JSON Schemas and the pages of the manual."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..inventory.schema import SERVICE
from .base import CommandGroup, ShellCommand, branch, positional

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise PydanticCustomError("manual_name", "must consist of letters, digits, dots, dashes and underscores")
    return value


_Name = Annotated[str, AfterValidator(_check_name)]


class ManTree(ShellCommand):
    """Draw the command tree or a branch of it."""

    HANDLER: ClassVar[str] = "man_tree"

    path: _Name | None = positional("Words of a command joined by dots, e.g. fastmcp.auth")
    has_options: Annotated[bool, Field(alias="all", description="Draw the options of every job command too")] = False


class ManTasks(ShellCommand):
    """Describe the tasks of a service, as its workers list them."""

    HANDLER: ClassVar[str] = "man_tasks"

    task: _Name | None = positional("Name of a task")
    service: Annotated[_Name, Field(description="Service whose workers are asked")] = SERVICE
    name: Annotated[_Name | None, Field(description="Name of a task, as the only word behind tasks")] = None
    brief: Annotated[bool, Field(description="List names only")] = False

    @model_validator(mode="after")
    def _names_one_task(self) -> Self:
        if self.task is not None and self.name is not None:
            raise PydanticCustomError("manual_task", "name the task once, with or without the word name before it")
        return self


class ManJsonSchema(ShellCommand):
    """Print the JSON Schema of a command."""

    HANDLER: ClassVar[str] = "man_json_schema"

    path: _Name | None = positional("Words of a command joined by dots, e.g. fastmcp.auth.create-token")


class ManPage(ShellCommand):
    """Print a page of the manual, or list the pages."""

    HANDLER: ClassVar[str] = "man_page"

    topic: _Name | None = positional("Topic of a page")


class ManExample(ShellCommand):
    """Print an example file of the manual as it is, or list the files."""

    HANDLER: ClassVar[str] = "man_example"

    file: _Name | None = positional("Name of a file")


class ManCommands(CommandGroup, prompt="nf[man]#"):
    """The manual."""

    tree: ManTree = branch("Draw the command tree or a branch of it")
    tasks: ManTasks = branch("Describe the tasks of a service")
    json_schema: ManJsonSchema = branch("Print the JSON Schema of a command", alias="json-schema")
    page: ManPage = branch("Print a page of the manual, or list them")
    example: ManExample = branch("Print an example file, or list them")
