"""Tasks about the worker's log, the files that it has fetched, and its watchdog."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from ...models.errors import EnvironmentFolderError, TaskError
from ...models.tasks.base import TaskInput
from ...models.tasks.operations import (
    DeletedFiles,
    DeleteFetchedFilesInput,
    GetLogsInput,
    LogRecord,
    WatchdogConfiguration,
    parse_time,
)
from ..jobs.task import task
from ..jobs.task_context import TaskContext
from ..logging import LOG_FILES_KEPT


@task(arguments=GetLogsInput, result=list[LogRecord], mcp=False, restricted=True)
def get_logs(worker: TaskContext, arguments: GetLogsInput) -> list[dict[str, Any]]:
    """Return the newest records of the worker's log, the oldest first, credentials masked."""
    newest = islice(_matching(worker, arguments), arguments.last)
    return [record.model_dump(exclude_none=True) for record in newest][::-1]


def _matching(worker: TaskContext, wanted: GetLogsInput) -> Iterator[LogRecord]:
    """Yield the records that are wanted, the newest first."""
    since, until = (None if text is None else parse_time(text) for text in (wanted.since, wanted.until))
    for record, moment in _records(worker):
        if since is not None and moment is not None and moment < since:
            return
        if until is not None and moment is not None and moment > until:
            continue
        if wanted.level is not None and record.level != wanted.level.upper():
            continue
        if wanted.logger is None or record.logger == wanted.logger:
            yield record


def _records(worker: TaskContext) -> Iterator[tuple[LogRecord, datetime | None]]:
    """Yield all records with their times, the newest first; None is the time of one that can't be read."""
    file = worker.environment.log_file(worker.name)
    for path in (file, *(Path(f"{file}.{number}") for number in range(1, LOG_FILES_KEPT + 1))):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TaskError(f"the log {path} can't be read: {error.strerror}") from None
        for line in reversed(lines):
            yield _parse(line, worker.name, path.name)


def _parse(line: str, name: str, file: str) -> tuple[LogRecord, datetime | None]:
    try:
        read = json.loads(line)
        moment = parse_time(read["time"])
        errors = read.get("errors")
        record = LogRecord(
            ts=moment.isoformat(timespec="microseconds"),
            level=read["level"],
            logger=read["logger"],
            message=read["message"],
            name=name,
            log_file=file,
            exception=json.dumps(errors) if errors else None,
        )
    except (ValueError, TypeError, KeyError):
        return LogRecord(ts="", level="ERROR", message="a line that can't be read", name=name, log_file=file), None
    return record, moment


@task(arguments=DeleteFetchedFilesInput, result=DeletedFiles, mcp=False, restricted=True)
def delete_fetched_files(worker: TaskContext, arguments: DeleteFetchedFilesInput) -> dict[str, Any]:
    """Delete files and folders that the worker has fetched from other services, by a glob such as `*` or `maps/*`."""
    folder = worker.environment.fetched_folder(worker.name)
    deleted: list[str] = []
    errors: list[str] = []
    try:
        # The deepest first: what a folder holds is named before the folder.
        found = sorted(folder.glob(arguments.filepath), key=lambda path: len(path.parts), reverse=True)
    except (OSError, ValueError, NotImplementedError) as error:
        raise TaskError(f"filepath {arguments.filepath[:200]!r} is no glob: {error}") from None
    for path in found:
        try:
            _delete(folder, path)
        except (OSError, EnvironmentFolderError) as error:
            errors.append(f"{path}: {error}")
        else:
            deleted.append(str(path))
    return DeletedFiles(deleted=deleted, errors=errors).model_dump()


def _delete(folder: Path, path: Path) -> None:
    """Delete what a path is itself, a link for instance; never what is elsewhere."""
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise EnvironmentFolderError("a link leads out of the folder of fetched files")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


@task(result=WatchdogConfiguration, mcp=False, is_read=True)
def get_watchdog_configuration(worker: TaskContext, _arguments: TaskInput) -> dict[str, Any]:
    """Return how often the worker looks at its memory, how much is too much, and what it does then."""
    inventory = worker.inventory
    return WatchdogConfiguration(
        watchdog_interval=inventory.watchdog_interval,
        memory_threshold_mbyte=inventory.memory_threshold_mbyte,
        memory_threshold_action=inventory.memory_threshold_action,
    ).model_dump()
