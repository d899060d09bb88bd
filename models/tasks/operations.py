"""Inputs and results of the tasks about a worker's log, the files that it has fetched, and its watchdog."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .base import Report, TaskInput

MAX_LOG_RECORDS = 10_000
LOG_LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def parse_time(text: str) -> datetime:
    """Return a time in ISO 8601, aware: without an offset it is local.

    Raises:
        ValueError: it has another format.
    """
    return datetime.fromisoformat(text).astimezone()


def _check_time(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_time(text)
        except (ValueError, OverflowError):
            raise PydanticCustomError(
                "log_time", "must be a time in ISO 8601, such as 2026-12-01 or 2026-12-01T04:30:00"
            ) from None
    return text


def _check_level(text: str | None) -> str | None:
    if text is not None and text.upper() not in LOG_LEVELS:
        raise PydanticCustomError("log_level", f"must be one of {', '.join(LOG_LEVELS)}")
    return text


def _check_pattern(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise PydanticCustomError("fetched_pattern", "must be a glob for paths below the folder of fetched files")
    return text


LogTime = Annotated[str | None, AfterValidator(_check_time)]
LogLevel = Annotated[str | None, AfterValidator(_check_level)]


class GetLogsInput(TaskInput):
    """Arguments of `get_logs`."""

    last: Annotated[int, Field(ge=1, le=MAX_LOG_RECORDS, description="Number of records at most, the newest")] = 100
    level: Annotated[LogLevel, Field(description="Level of the records, such as WARNING")] = None
    logger: Annotated[str | None, Field(description="Name of the logger")] = None
    since: Annotated[LogTime, Field(description="Time of the oldest record, ISO 8601")] = None
    until: Annotated[LogTime, Field(description="Time of the newest record, ISO 8601")] = None


class LogRecord(Report):
    """Record of a worker's log."""

    ts: str = Field(description="Local time with offset, ISO 8601; empty for a line that can't be read")
    level: str = Field(description="Level of the record")
    logger: str = Field(default="", description="Name of the logger")
    message: str = Field(description="What happened, credentials masked")
    role: str = Field(default="worker", description="Role of the process")
    name: str = Field(description="Name of the worker")
    log_file: str = Field(description="Name of the file that it is in")
    exception: str | None = Field(default=None, description="Exceptions, each with the places that it came from")


FilePattern = Annotated[str, AfterValidator(_check_pattern)]


class DeleteFetchedFilesInput(TaskInput):
    """Arguments of `delete_fetched_files`."""

    filepath: Annotated[FilePattern, Field(description="Glob for paths below the folder of fetched files")]


class DeletedFiles(Report):
    """What `delete_fetched_files` has deleted."""

    deleted: list[str] = Field(description="Paths of files and folders that were deleted")
    errors: list[str] = Field(description="Why others could not be deleted, a line each")


class WatchdogConfiguration(Report):
    """What the worker does about the memory that it uses."""

    watchdog_interval: int = Field(description="Seconds between two looks at the memory")
    memory_threshold_mbyte: int = Field(description="Memory in MiB that is too much")
    memory_threshold_action: str = Field(description="What happens then: log, or shutdown")
