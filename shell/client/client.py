"""The client: runs a job on workers and returns the result of each, failures and timeouts included."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid as uuids
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.errors import JobInterruptedError, NfcliError, NoWorkersError, UsageError
from ...models.inventory.schema import SERVICE, Inventory
from ...models.protocol.frames import ALL, ANY
from ...models.protocol.jobs import DEFAULT_TIMEOUT_SECONDS, Page, ResultFormat, Results, encode_request
from ...models.protocol.pending_job import OnEvent, OnStream, PendingJob
from ...models.protocol.signatures import JobSigner
from ...models.signing_keys import SigningKey
from ..transport.base import MISSING, Transport
from .files import FileSharing
from .fleet import Fleet, MissingWorker
from .identity import local_user

REFRESH_SECONDS = 2.5
"""Limit for refreshing the list of workers."""

ANY_SECONDS = 1.0
"""How long each worker may take to answer before another one is chosen for a job that any of them may do."""


class Client(FileSharing):
    """Runs jobs on workers; created by `NorFab.make_client`.

    Times in results of nfcli's workers are ISO 8601 with an offset, and null for never; those of NorFab's are as they
    send them: local times without offset, and the word `None`.

    All methods may be called from any thread; jobs of one client run one after the other. Leaving a job early
    (KeyboardInterrupt) is safe: its late replies are dropped. It is a `JobInterruptedError` once the job was sent.

    Args:
        environment: the environment.
        inventory: its inventory.
        keys: the client's CURVE key pair.
        transport: the way to the workers.
        before_first_job: called once, before the first job, which raises what it raises.
        restart: called with each target of a later job that isn't running; returns whether it started that worker. An
            `NfcliError` that it raises becomes the reason why the worker isn't reached.
        on_event: called with each event of a job, in the thread that waits for it.
        fleet: the workers that are expected, by default those of the inventory and every one seen before.
    """

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair,
        transport: Transport,
        *,
        before_first_job: Callable[[], None] | None = None,
        restart: Callable[[str], bool] | None = None,
        on_event: OnEvent | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.environment = environment
        self.inventory = inventory
        self._fleet = fleet or Fleet(environment, inventory)
        self._keys = keys
        self._signer = JobSigner(keys.public.decode(), SigningKey(keys.secret), time.time)
        self._transport = transport
        self._before_first_job = before_first_job
        self._restart = restart
        self._on_event = on_event
        self._lock = threading.Lock()
        self._is_closed = False
        self._origin = local_user()
        self._process = os.getpid()
        self._encode = partial(encode_request, origin=self._origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client can't be used afterwards."""
        if os.getpid() != self._process:
            return  # the connections are the parent's
        with self._lock:
            self._is_closed = True
            self._transport.close()

    def run_job(  # noqa: PLR0917  the order of the reference's run_job, which scripts call by position
        self,
        service: str,
        task: str,
        uuid: str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        workers: str | Sequence[str] = ALL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        *,
        page: Page | None = None,
        on_stream: OnStream | None = None,
    ) -> Results:
        """Run a task and return `{worker: Result as a dict}`, one entry for each targeted worker.

        A worker that failed, disconnected or didn't answer in time has `failed` true and one line in `errors`.

        Args:
            service: service of the targeted workers, `fastmcp`; `all` for every service.
            task: name of the task.
            uuid: the job's id, random by default; a job sent twice with the same id runs once, with the same result.
            args: must be empty for nfcli's workers: name each argument in `kwargs`.
            kwargs: the task's arguments.
            workers: `all` (also of `missing_workers`), `any` (a random one that can be reached), a name, or several.
            timeout: seconds for the whole job, connecting included.
            page: request a part of a list, where nfcli's workers have pages: `{"rows": […], "next": CURSOR}`.
            on_stream: called with each part of a file that the worker streams, in this thread.

        Raises:
            NoWorkersError: unknown service or worker name, or neither a targeted worker nor the broker is reachable.
            AccessDeniedError: every worker that could be reached refused this client's key.
            UsageError: an argument is not valid, or the client is closed or belongs to the process before a fork.
        """
        encode = partial(self._encode, task, kwargs or {}, args=args or (), timeout=timeout, result_format=_form(page))
        job = PendingJob(
            *(service, task, uuid or uuids.uuid4().hex, encode()),
            timeout=timeout,
            deadline=time.monotonic() + timeout,
        )
        job.may_be_repeated, job.on_event, job.on_stream = uuid is not None, self._on_event, on_stream
        _check_names(workers)
        with self._refreshed(min(REFRESH_SECONDS, timeout)):
            names, absent, job.not_started, seconds = self._running_targets(service, workers)
            if seconds:
                job.deadline += seconds
                job.data = encode(seconds_left=job.deadline - time.monotonic())
            return self._run_on_any(job, names) if workers == ANY else self._run(job, names, absent)

    def check_workers(self, names: Sequence[str], service: str = SERVICE) -> None:
        """Check that a service has these workers or expects them, without sending them anything.

        Raises:
            NoWorkersError: as `run_job` for a job to them, also if the broker isn't reachable.
        """
        _check_names(names)
        with self._refreshed():
            self._targets(service, names)

    def worker_names(self, service: str = ALL) -> list[str]:
        """Return the names of a service's workers: those of the inventory, or with a broker those registered there.

        Raises:
            NoWorkersError: the broker isn't reachable.
        """
        with self._refreshed():
            return self._transport.candidates(service)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status (`alive`, `dead`), seconds up, note.

        Without a broker each has an endpoint as well; with one a hold time: the seconds until the broker considers it
        dead. Expected workers that the broker or the inventory doesn't list have the status `missing`.

        Raises:
            NoWorkersError: the broker isn't reachable.
            EnvironmentFolderError: as `missing_workers`.
        """
        with self._refreshed():
            rows = {row["name"]: row for row in self._transport.show_workers()}
            blank = dict.fromkeys(self._transport.COLUMNS, "") | {"service": SERVICE, "status": MISSING}
            for name, worker in self._missing(SERVICE).items():
                row = rows.setdefault(name, {**blank, "name": name})
                row["note"] = row["note"] or str(worker)
            return [rows[name] for name in sorted(rows)]

    def missing_workers(self) -> dict[str, str]:
        """Return the expected workers of `fastmcp` that can't be reached, and for each why and what to do.

        Expected are the workers of `topology.workers` and `fleet` in the inventory, and every worker that a broker has
        listed before, until `forget_worker`. A glob of `fleet` that has matched no worker is returned as the glob.

        Raises:
            NoWorkersError: the broker isn't reachable.
            EnvironmentFolderError: the file of the workers seen before can't be read.
        """
        with self._refreshed():
            return {name: str(worker) for name, worker in sorted(self._missing(SERVICE).items())}

    def forget_worker(self, name: str) -> None:
        """Expect a worker no longer that was seen before.

        Raises:
            NfcliError: it wasn't seen, is registered at the broker now, or is expected by the inventory.
            EnvironmentFolderError: the file of the workers seen before can't be read or written.
        """
        try:
            with self._refreshed():
                self._fleet.forget(name, self._transport.registered(SERVICE))
        except NoWorkersError:  # no broker: nothing is registered
            with self._lock:
                self._fleet.forget(name, ())

    def show_broker(self) -> dict[str, Any]:
        """Return the broker's own report: state, versions, number of workers and services.

        Raises:
            NfcliError: the environment has no broker.
            NoWorkersError: the broker isn't reachable.
        """
        with self._refreshed():
            return self._transport.show_broker()

    def describe(self) -> dict[str, Any]:
        """Return this client's environment, public key, mode (`direct` or `fabric`) and workers; contacts no peer.

        With a broker its endpoint and the origin of its key are included, and the workers are those of this machine.
        """
        return {
            "environment": str(self.environment.folder),
            "inventory": str(self.environment.inventory_file or "built-in default"),
            "public_key": self._keys.public.decode(),
            "keys": str(self.environment.keys_folder),
            **self._transport.describe(),
        }

    @contextmanager
    def _refreshed(self, seconds: float = REFRESH_SECONDS) -> Iterator[None]:
        """Hold the lock, with a fresh list of workers."""
        if os.getpid() != self._process:  # ZeroMQ's threads are not forked: nothing would ever answer
            raise UsageError(
                f"this client belongs to process {self._process}, which this one was forked from: "
                "create one here with make_client"
            )
        with self._lock:
            if self._is_closed:
                raise UsageError("this client is closed: create another one with make_client")
            self._transport.refresh(seconds)
            yield

    def _running_targets(
        self, service: str, workers: str | Sequence[str]
    ) -> tuple[list[str], dict[str, NfcliError], dict[str, NfcliError], float]:
        """Return what `_targets` does once the workers of a job run, and what `_ensure_workers` does."""
        names, absent = self._targets(service, workers)
        not_started, seconds = self._ensure_workers(names)
        if seconds:
            names, absent = self._targets(service, workers)
        return names, absent, not_started, seconds

    def _ensure_workers(self, names: list[str]) -> tuple[dict[str, NfcliError], float]:
        """Start the workers of a job that aren't running.

        Returns:
            The errors of those that couldn't be started, by name; how many seconds it took if the list of workers may
            have changed, else 0.
        """
        started = time.monotonic()
        not_started: dict[str, NfcliError] = {}
        has_changed = False
        if self._before_first_job is not None:
            self._before_first_job()
            self._before_first_job = None
            has_changed = True
        elif self._restart is not None:
            for name in names:
                try:
                    if not self._transport.is_running(name):
                        has_changed |= self._restart(name)
                except NfcliError as error:
                    not_started[name] = error
        if not has_changed:
            return not_started, 0.0
        self._transport.wait_registered()
        return not_started, time.monotonic() - started

    def _missing(self, service: str) -> dict[str, MissingWorker]:
        """Return the expected workers of a service that the transport doesn't list; remember those that it does."""
        if service not in (SERVICE, ALL):
            return {}
        self._fleet.record(self._transport.registered(SERVICE))
        return self._fleet.missing(self._transport.candidates(SERVICE))

    def _targets(self, service: str, workers: str | Sequence[str]) -> tuple[list[str], dict[str, NfcliError]]:
        """Return the workers to send a job to, and the errors of those that it should reach and can't."""
        candidates = self._transport.candidates(service)
        missing = self._missing(service)
        absent: dict[str, NfcliError] = {name: missing[name].error() for name in missing if name not in candidates}
        if not candidates and not absent:
            services, source = self._transport.services(), self._transport.SOURCE
            raise NoWorkersError(f"no worker serves {service!r}: {source} has {_join(services)}")
        if workers == ALL:
            return candidates, absent
        if workers == ANY:
            if not candidates:
                raise _unreachable(absent)
            return candidates, {}
        names = [workers] if isinstance(workers, str) else list(dict.fromkeys(workers))
        if not names:
            raise NoWorkersError("the list of workers is empty: name at least one, or use all")
        unknown = [name for name in names if name not in candidates and name not in absent]
        if unknown:
            there = _join(sorted({*candidates, *absent}))
            raise NoWorkersError(f"unknown worker {_join(map(repr, unknown))}: there is {there}")
        return [name for name in names if name in candidates], {name: absent[name] for name in names if name in absent}

    def _run_on_any(self, job: PendingJob, names: list[str]) -> Results:
        """Try one worker after the other until one can be reached: one that answers first, then those that seem to run.

        A worker that accepts a job and doesn't answer can't be tried and left: it may do the job later.
        """
        failure: NoWorkersError | None = None
        shuffled = sorted(random.sample(names, len(names)), key=self._transport.is_running, reverse=True)
        seconds = min(ANY_SECONDS, (job.deadline - time.monotonic()) / (len(names) + 1))
        first = next((name for name in shuffled if len(names) > 1 and self._transport.answers(name, seconds)), None)
        for name in sorted(shuffled, key=lambda name: name != first):
            try:
                return self._run(job, [name])
            except NoWorkersError as error:
                failure = error
        raise failure or NoWorkersError("there is no worker: start one with nfcli -w")

    def _run(self, job: PendingJob, names: list[str], absent: Mapping[str, NfcliError] | None = None) -> Results:
        for name, error in (absent or {}).items():
            job.fail_gone(name, error)
        job.missing = set(names)
        if job.missing:
            self._send(job)
            job.expire()
        targets = {*names, *(absent or {})}
        if job.unreached.keys() >= targets:
            raise _unreachable(job.unreached)
        return {name: job.results[name] for name in sorted(targets)}

    def _send(self, job: PendingJob) -> None:
        """Sign a job for its missing workers, and send it; signed for one worker, it may be sent to another later."""
        request = job.data
        job.data = self._signer.sign(request, uuid=job.uuid, service=job.service, workers=sorted(job.missing))
        try:
            self._transport.send(job)
        except KeyboardInterrupt:
            raise JobInterruptedError(job.interruption()) from None
        finally:
            job.data = request


def _form(page: Page | None) -> ResultFormat:
    return ResultFormat(times="iso8601", page=page)


def _unreachable(unreached: dict[str, NfcliError]) -> NfcliError:
    """Return the error of a job that reached no worker; its class is that of the workers' errors, if they agree."""
    kinds = {type(error) for error in unreached.values()}
    kind = kinds.pop() if len(kinds) == 1 else NoWorkersError
    error = kind("; ".join(dict.fromkeys(str(error) for error in unreached.values())))
    error.has_reached_none = True
    return error


def _check_names(workers: object) -> None:
    """Raise UsageError for targets that are no names."""
    if not (isinstance(workers, Collection) and all(isinstance(name, str) for name in workers)):
        raise UsageError(f"workers must be all, any, a name or a list of names, got {workers!r}")


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
