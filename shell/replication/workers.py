"""The workers whose tokens are compared: what each answers, and which of them fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...models.errors import NoWorkersError, TaskError
from ...models.inventory.schema import SERVICE
from ...models.protocol.jobs import failed_result, failure_reason
from ...models.tasks.token_sync import TokenSetReport, TokenState
from ..job_client import JobClient

ModelT = TypeVar("ModelT", bound=BaseModel)
_COMPARE = "bearer_token_compare"
_NO_DIGEST = "it sends no digest of them, as an older nfcli or another program"
MAX_LISTED = 5_000
"""About how many tokens a worker lists in one job."""


class ComparedWorkers:
    """Several workers and the digests of their tokens.

    `reports` are those of the workers that answer. `failures` are the reasons of the others by name: a worker that
    fails is left out from then on.
    """

    def __init__(self, client: JobClient, workers: str | Sequence[str], timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self.failures: dict[str, str] = {}
        self.reports: dict[str, TokenSetReport] = {}
        self._compare(workers)

    def _compare(self, workers: str | Sequence[str]) -> None:
        self.reports = {}
        for worker, value in self.run(_COMPARE, workers).items():
            report = self.validated(worker, TokenSetReport, value)
            if report is not None:
                self.reports[worker] = report

    def compare_again(self) -> None:
        """Ask the workers that have answered for their digests again."""
        if self.reports:
            self._compare(sorted(self.reports))

    def check_comparable(self) -> None:
        """Check that the workers have one fleet key.

        Raises:
            TaskError: they have several.
        """
        keys: dict[str, list[str]] = {}
        for worker, report in self.reports.items():
            keys.setdefault(report.fleet_key, []).append(worker)
        if len(keys) > 1:
            sides = "; ".join(f"{', '.join(workers)}: {key}" for key, workers in sorted(keys.items()))
            raise TaskError(
                f"tokens are not comparable, nothing changed: the fleet keys differ ({sides}): give all workers one "
                "key, see man page security"
            )

    def run(self, task: str, workers: str | Sequence[str], **kwargs: Any) -> dict[str, Any]:
        """Run a task on workers and return their values; those that fail are left out and recorded."""
        try:
            results = self._client.run_job(SERVICE, task, kwargs=kwargs, workers=workers, timeout=self._timeout)
        except NoWorkersError as error:
            if isinstance(workers, str) or not self.reports:
                raise
            results = {worker: failed_result(str(error)) for worker in workers}
        values = {}
        for worker, result in sorted(results.items()):
            if result.get("failed"):
                self.fail(worker, failure_reason(result))
            else:
                values[worker] = result.get("result")
        return values

    def fail(self, worker: str, reason: str) -> None:
        """Record that a worker has failed; the name of the task is in the errors of workers that don't have it."""
        cause = _NO_DIGEST if _COMPARE in reason else reason
        self.failures[worker] = f"its tokens are unknown: {cause}"
        self.reports.pop(worker, None)

    def different_ranges(self) -> list[list[int]]:
        """Return the ranges of ids in which workers differ, in groups that one job lists."""
        reports = list(self.reports.values())
        groups: list[list[int]] = []
        listed = MAX_LISTED
        for number, digests in enumerate(zip(*(report.digests for report in reports), strict=False)):
            if len(set(digests)) <= 1:
                continue
            count = max(report.counts[number] for report in reports)
            if listed + count > MAX_LISTED:
                groups.append([])
                listed = 0
            groups[-1].append(number)
            listed += count
        return groups

    def states(self, ranges: Sequence[int]) -> Iterator[tuple[str, dict[str, TokenState]]]:
        """Yield each token in some ranges: its id, and the state of the workers that know of it."""
        found: dict[str, dict[str, TokenState]] = {}
        for worker, value in self.run("bearer_token_states", sorted(self.reports), ranges=list(ranges)).items():
            states = self._validated_states(worker, value)
            for state in states:
                found.setdefault(state.id, {})[worker] = state
        yield from sorted(found.items())

    def _validated_states(self, worker: str, value: Any) -> list[TokenState]:
        found = []
        for each in value if isinstance(value, list) else [None]:
            state = self.validated(worker, TokenState, each)
            if state is None:
                return []
            found.append(state)
        return found

    def validated(self, worker: str, model: type[ModelT], value: Any) -> ModelT | None:
        """Return a worker's answer as a `model`; None if it isn't one, and then the worker has failed."""
        try:
            return model.model_validate(value)
        except ValidationError:
            self.fail(worker, "its answer has not the form that this nfcli expects")
            return None


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield items in lists of at most `size`."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def merged_users(reports: Mapping[str, TokenSetReport], workers: Iterable[str]) -> dict[str, float]:
    """Return when all tokens of each user were last deleted, as these workers know."""
    found: dict[str, float] = {}
    for worker in workers:
        for user, deleted in reports[worker].users.items():
            found[user] = max(deleted, found.get(user, deleted))
    return found
