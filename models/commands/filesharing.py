"""`filesharing …` and `show filesharing …`: the files that a NorFab fabric shares."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from ..fields import TimeoutSeconds
from ..shared_files.address import MAX_CHARACTERS, SCHEME, SERVICE
from ..tasks.operations import DeleteFetchedFilesInput, FilePattern
from .base import ALL_WORKERS, CommandGroup, JobArguments, ShellCommand, branch, check_printable

COPY_SECONDS = 600


def _check_url(value: str) -> str:
    if not value.startswith(SCHEME):
        raise PydanticCustomError("file_url", "must begin with nf://")
    return check_printable(value)


PrintableText = Annotated[str, StringConstraints(pattern=r"\S"), AfterValidator(check_printable)]
FileUrl = Annotated[
    str,
    StringConstraints(max_length=MAX_CHARACTERS),
    AfterValidator(_check_url),
    Field(description="Address of a shared file, nf://PATH"),
]


class CopyFile(ShellCommand):
    """Copy a shared file to this machine: whole, its size and checksum compared, or not at all."""

    HANDLER: ClassVar[str] = "copy_file"

    url: FileUrl
    destination: Annotated[
        PrintableText | None, Field(description="File to make, or folder to put it in; else a folder of nfcli's")
    ] = None
    read: Annotated[bool, Field(description="Print its text instead of its path")] = False
    overwrite: Annotated[bool, Field(description="Replace another file at the destination")] = False
    timeout: Annotated[TimeoutSeconds | None, Field(description="Seconds until it must have arrived")] = None


class DeleteFetchedFiles(DeleteFetchedFilesInput, JobArguments):
    """Delete the copies of shared files that workers of all services have fetched."""

    SERVICE: ClassVar[str] = ALL_WORKERS
    TASK: ClassVar[str] = "delete_fetched_files"

    filepath: Annotated[
        FilePattern,
        StringConstraints(pattern=r"\S"),
        AfterValidator(check_printable),
        Field(description="Glob for paths below the folder of fetched files, all if not given"),
    ] = "*"
    yes: Annotated[bool, Field(description="Delete all of them without asking", exclude=True)] = False

    def question(self) -> str:
        """Return the question of a deletion of all files, empty where some were named or yes was typed."""
        return "" if self.yes or "filepath" in self.model_fields_set else "Delete all files that workers have fetched?"


class FilesharingCommands(CommandGroup, prompt="nf[filesharing]#"):
    """Commands of NorFab's file service."""

    # `copy` is the name of a method that all models have.
    copy_: CopyFile = branch("Copy a shared file to this machine", alias="copy")
    delete_fetched_files: DeleteFetchedFiles = branch("Delete copies that workers keep", alias="delete-fetched-files")


class _FileJob(JobArguments):
    SERVICE: ClassVar[str] = SERVICE


class ListFiles(_FileJob):
    """List the files and folders in a shared folder, and the workers that have each."""

    TASK: ClassVar[str] = "list_files"
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "workers")

    url: Annotated[FileUrl, Field(description="Address of a shared folder, nf://PATH")] = SCHEME

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's result, failed where it is no list of names."""
        names = result.get("result")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            result = {**result, "result": [{"name": name} for name in names]}
        return super().check_result(result)

    def merge(self, values: dict[str, Any]) -> Any:
        """Return a row for each name."""
        holders = defaultdict(list)
        for worker, rows in values.items():
            for row in rows:
                holders[row["name"]].append(worker)
        return [{"name": name, "workers": ", ".join(holders[name])} for name in sorted(holders)]


class ShowFile(_FileJob):
    """Show size and checksum of a shared file."""

    TASK: ClassVar[str] = "file_details"
    COLUMNS: ClassVar[tuple[str, ...]] = ("worker", "size_bytes", "md5hash")

    url: FileUrl

    def check_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's result as a table of one row, failed where it is no record."""
        details = result.get("result")
        return super().check_result({**result, "result": [details]})


class ShowRemotes(_FileJob):
    """Show the Git repositories that the file service shares."""

    TASK: ClassVar[str] = "get_remotes"
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("worker", "name", "mount", "type", "branch", "auto_sync", "sync_interval", "status"),
    )

    name: Annotated[PrintableText | None, Field(description="Name of one of them")] = None


class ShowFilesharingCommands(CommandGroup, prompt="nf[show-filesharing]#"):
    """Commands that read what NorFab's file service has."""

    files: ListFiles = branch("Show files and folders in a shared folder")
    details: ShowFile = branch("Show size and checksum of a shared file")
    remotes: ShowRemotes = branch("Show shared Git repositories")
