"""The jobs that nobody waits for, in `.nfcli/jobs.json`, for whoever asks for their results later.

The file is `{"version": 1, "jobs": [JOB, …]}`, the oldest first, with the fields of `JobRecord`: neither arguments nor
results, which may hold secrets. It is replaced atomically, and changed under a lock, so concurrent shells lose nothing.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ....models.environment.file_lock import locked_change
from ....models.environment.paths import Environment
from ....models.environment.private_files import open_private, write_private
from ....models.errors import EnvironmentFolderError, NfcliError

MAX_JOBS = 1_000
LOCK_SECONDS = 1.0
_MAX_FILE_BYTES = 8 * 1024 * 1024
_SHOWN_UUIDS = 3

_Text = Annotated[str, Field(max_length=1_024)]


class JobRecord(BaseModel):
    """A job that was sent to `workers`; `identity` is what they know its sender by, empty for a client's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: _Text
    service: _Text
    task: _Text
    workers: list[_Text]
    submitted: AwareDatetime
    timeout: float
    identity: _Text = ""

    def row(self) -> dict[str, Any]:
        """Return this as a row of a table."""
        submitted = self.submitted.astimezone().isoformat()
        return {
            "uuid": self.uuid,
            "submitted": submitted,
            "service": self.service,
            "task": self.task,
            "workers": self.workers,
        }


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    jobs: list[JobRecord] = Field(default_factory=list)


class JobRecords:
    """The records of an environment's jobs; any thread may call any method. The oldest over `MAX_JOBS` are dropped."""

    def __init__(self, environment: Environment, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._file = environment.jobs_file
        self._lock_seconds = lock_seconds

    def read(self) -> list[JobRecord]:
        """Return the records, the oldest first.

        Raises:
            EnvironmentFolderError: the file can't be read, isn't private, or has another form.
        """
        try:
            with open_private(self._file, "rb") as stream:
                data = stream.read(_MAX_FILE_BYTES)  # the beginning of a longer one is no JSON
            return _Document.model_validate_json(data).jobs
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EnvironmentFolderError(f"{self._file} can't be read: {error.strerror}") from error
        except ValidationError:
            fault = f"{self._file} is not a list of jobs that this version of nfcli can read"
            raise EnvironmentFolderError(f"{fault}: move it away") from None

    def find(self, uuid: str) -> JobRecord:
        """Return the record of a job, given its uuid or the beginning of it.

        Raises:
            NfcliError: there is none, or more than one begins so.
            EnvironmentFolderError: as `read`.
        """
        found = [record for record in self.read() if record.uuid.startswith(uuid)]
        exact = [record for record in found if record.uuid == uuid] or found
        if not exact:
            raise NfcliError(f"no job {uuid!r} was submitted here with nowait: show jobs lists those that were")
        if len(exact) > 1:
            shown = ", ".join(record.uuid for record in exact[:_SHOWN_UUIDS])
            raise NfcliError(f"{len(exact)} jobs begin with {uuid!r}: type more of the uuid, for example {shown}")
        return exact[0]

    def add(self, record: JobRecord) -> None:
        """Add a record; one of the same uuid is replaced.

        Raises:
            EnvironmentFolderError: as `read`; or the file can't be written, or is locked for `lock_seconds`.
        """
        with locked_change(self._file, self._lock_seconds):
            records = [each for each in self.read() if each.uuid != record.uuid]
            document = _Document(jobs=[*records, record][-MAX_JOBS:])
            text = json.dumps(document.model_dump(mode="json"), indent=1, ensure_ascii=False)
            write_private(self._file, text.encode() + b"\n")


def utc_now() -> datetime:
    """Return the time as it is recorded, in whole milliseconds."""
    return datetime.fromtimestamp(round(time.time(), 3), UTC)
