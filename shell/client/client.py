"""The client: runs a job on workers and returns the result of each, failures and timeouts included."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.errors import NoWorkersError, UsageError
from ...models.inventory.schema import SERVICE, Inventory
from ...models.protocol.frames import ALL
from ...models.protocol.jobs import DEFAULT_TIMEOUT_SECONDS, Page, Results
from ...models.protocol.pending_job import OnEvent, OnStream
from ...models.protocol.signatures import JobSigner
from ...models.signing_keys import SigningKey
from ..transport.base import MISSING, Transport
from .files import FileSharing
from .fleet import Fleet
from .identity import local_user
from .jobs.questions import OnInput, listen_to
from .jobs.runner import (
    REFRESH_SECONDS,
    ExpectedWorkers,
    JobOptions,
    JobRunner,
    Submission,
    WorkerStarter,
    check_names,
)
from .observing import Observing

if TYPE_CHECKING:
    from .jobs.detached import DetachedJobs, FetchedResults, StartedJob
    from .jobs.job import Job
    from .jobs.threads import JobThreads

FETCH_SECONDS = 10.0
"""How long workers may take to return the results of a job that was sent before."""


class Client(FileSharing, Observing):
    """Runs jobs on workers; created by `NorFab.make_client`.

    Times in results of nfcli's workers are ISO 8601 with an offset, and null for never; those of NorFab's are as they
    send them: local times without offset, and the word `None`.

    All methods may be called from any thread; jobs of `run_job` run one after the other. Leaving a job early
    (KeyboardInterrupt) is safe: its late replies are dropped. It is a `JobInterruptedError` once the job was sent.

    Args:
        environment: the environment.
        inventory: its inventory.
        keys: the client's CURVE key pair.
        transport: the way to the workers.
        open_transport: opens another one, as a client that was known by the given identity, or by a new one if that is
            empty.
        before_first_job: called once, before the first job, which raises what it raises.
        restart: called with each target of a later job that isn't running; returns whether it started that worker. An
            `NfcliError` that it raises becomes the reason why the worker isn't reached.
        on_event: called with each event of a job, in the thread that waits for it.
        on_input: returns the answer to a question of a task, called there too.
        fleet: the workers that are expected, by default those of the inventory and every one seen before.
    """

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair,
        transport: Transport,
        *,
        open_transport: Callable[[str], Transport] | None = None,
        before_first_job: Callable[[], None] | None = None,
        restart: Callable[[str], bool] | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.environment = environment
        self.inventory = inventory
        self._keys = keys
        self._signer = JobSigner(keys.public.decode(), SigningKey(keys.secret), time.time)
        self._transport = transport
        self._open_transport = open_transport
        self._starter = WorkerStarter(before_first_job, restart)
        self._expected = ExpectedWorkers(fleet or Fleet(environment, inventory))
        self._runner = JobRunner(transport, self._signer, self._starter, self._expected)
        self._job_threads: JobThreads | None = None
        self._on_event = on_event
        self._on_input = on_input
        self._lock = threading.Lock()
        self._is_closed = False
        self._origin = local_user()
        self._process = os.getpid()

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
            threads = self._job_threads
        if threads is not None:
            threads.stop()
        with self._lock:
            self._transport.close()

    @overload
    def run_job(
        self,
        service: str,
        task: str,
        *,
        page: Page | None = ...,
        on_stream: OnStream | None = ...,
        on_input: OnInput | None = ...,
        **options: Unpack[JobOptions],
    ) -> Results: ...

    @overload
    def run_job(self, service: str, task: str, *, markdown: Literal[True], **options: Unpack[JobOptions]) -> str: ...

    @overload
    def run_job(
        self, service: str, task: str, *, nowait: Literal[True], **options: Unpack[JobOptions]
    ) -> dict[str, str]: ...

    def run_job(  # noqa: PLR0917  the order of the reference's run_job, which scripts call by position
        self,
        service: str,
        task: str,
        uuid: str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        workers: str | Sequence[str] = ALL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        markdown: bool = False,
        nowait: bool = False,
        *,
        page: Page | None = None,
        on_stream: OnStream | None = None,
        on_input: OnInput | None = None,
    ) -> Any:
        """Run a task and return `{worker: Result as a dict}`, one entry for each targeted worker.

        A worker that failed, disconnected or didn't answer in time has `failed` true and one line in `errors`.

        Args:
            service: service of the targeted workers, `fastmcp`; `all` for every service.
            task: name of the task.
            uuid: the job's id, random by default; a job sent twice with the same id runs once, with the same result.
            args: must be empty for nfcli's workers: name each argument in `kwargs`.
            kwargs: the task's arguments.
            workers: `all` (also of `missing_workers`), `any` (a random one that can be reached), a name, or several.
            timeout: seconds for the whole job.
            markdown: return the results as a text in Markdown.
            nowait: return `{"uuid": …, "service": …}` as soon as workers have the job, as `start_job` does.
            page: request a part of a list, where nfcli's workers have pages: `{"rows": […], "next": CURSOR}`.
            on_stream: called with each part of a file that the worker streams, in this thread.
            on_input: returns the answer to a question of the task; without it, or if it returns None, that is No.

        Raises:
            NoWorkersError: unknown service or worker name, or neither a targeted worker nor the broker is reachable.
            AccessDeniedError: every worker that could be reached refused this client's key.
            UsageError: an argument is not valid, or the client is closed or of the process before a fork.
        """
        options = JobOptions(args=args, kwargs=kwargs, workers=workers, timeout=timeout, uuid=uuid)
        if nowait:
            return {"uuid": self.start_job(service, task, **options).uuid, "service": service}
        submission = Submission(service, task, origin=self._origin, page=page, **options)
        with self._refreshed(min(REFRESH_SECONDS, timeout)):
            listen = partial(listen_to, on_event=self._on_event, on_input=on_input or self._on_input)
            _, results = self._runner.run(submission, listen, on_stream=on_stream)
        return _to_markdown(service, task, results) if markdown else results

    def submit_job(
        self,
        service: str,
        task: str,
        *,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Run a task as `run_job` does, in another thread; return a future of its results at once.

        Up to 32 jobs of a client run at the same time; those with a `uuid` of the caller's run one after the other, as
        those of `run_job` do. `on_event` and `on_input` are called in the job's thread; without `on_input`, questions
        are left to `Job.send_response`.

        Raises:
            UsageError: as `run_job`. All other errors are raised by `Job.result`.
        """
        self._check_process()
        submission = Submission(service, task, origin=self._origin, **options)
        listen = partial(listen_to, on_input=on_input or self._on_input, refuses=False)
        return self._threads().submit(submission, listen, on_event or self._on_event)

    def start_job(self, service: str, task: str, **options: Unpack[JobOptions]) -> StartedJob:
        """Send a job without waiting for its results: `fetch_results` requests them later, from any process.

        The job is recorded in the environment's state, without its arguments.

        Raises:
            NfcliError: as `run_job`; or no worker has taken the job, or it can't be recorded.
        """
        self._check_process()
        return self._detached().start(Submission(service, task, origin=self._origin, **options))

    def list_jobs(self) -> list[dict[str, Any]]:
        """Return a row for each job that was sent with `nowait` in this environment, the oldest first.

        Raises:
            EnvironmentFolderError: the file with them can't be read.
        """
        return [record.row() for record in self._detached().records.read()]

    def fetch_results(self, uuid: str, timeout: float = FETCH_SECONDS) -> FetchedResults:
        """Return what the workers of a job that was sent with `nowait` have to say by now.

        `uuid` may be the beginning of one.

        Raises:
            NfcliError: there is no such job, or more than one; or as `run_job`.
        """
        self._check_process()
        return self._detached().fetch(uuid, timeout)

    def fetch_events(self, uuid: str, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> Results:
        """Return the result of the task `job_details` for each worker of such a job, with the events that it kept."""
        record = self._detached().records.find(uuid)
        kwargs = {"uuid": record.uuid, "result": False, "events": True}
        return self.run_job(record.service, "job_details", kwargs=kwargs, workers=record.workers, timeout=timeout)

    def _threads(self) -> JobThreads:
        from .jobs.threads import JobThreads  # noqa: PLC0415  the shell runs its jobs itself

        with self._lock:
            self._assert_open()
            if self._job_threads is None:
                self._job_threads = JobThreads(self._make_runner, self._borrowed_runner)
            return self._job_threads

    def _detached(self) -> DetachedJobs:
        from .jobs.detached import DetachedJobs  # noqa: PLC0415  few commands need it

        return DetachedJobs(self.environment, self._make_runner)

    def _make_runner(self, identity: str = "") -> JobRunner:
        """Return a runner with a transport of its own, known as `identity` if that is given."""
        if self._open_transport is None:
            raise UsageError("this client has no connections but its own")
        return JobRunner(self._open_transport(identity), self._signer, self._starter, self._expected)

    @contextmanager
    def _borrowed_runner(self) -> Iterator[JobRunner]:
        """Hold this client's own runner."""
        with self._refreshed():
            yield self._runner

    def check_workers(self, names: Sequence[str], service: str = SERVICE) -> None:
        """Check that a service has these workers or expects them, without sending them anything.

        Raises:
            NoWorkersError: as `run_job` for a job to them, also if the broker isn't reachable.
        """
        check_names(names)
        with self._refreshed():
            self._runner.targets(service, names)

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
            for name, worker in self._runner.missing(SERVICE).items():
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
            return {name: str(worker) for name, worker in sorted(self._runner.missing(SERVICE).items())}

    def forget_worker(self, name: str) -> None:
        """Expect a worker no longer that was seen before.

        Raises:
            NfcliError: it wasn't seen, is registered at the broker now, or is expected by the inventory.
            EnvironmentFolderError: the file of the workers seen before can't be read or written.
        """
        try:
            with self._refreshed():
                self._expected.forget(name, self._transport.registered(SERVICE))
        except NoWorkersError:  # no broker: nothing is registered
            self._expected.forget(name, ())

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
        self._check_process()
        with self._lock:
            self._assert_open()
            self._transport.refresh(seconds)
            yield

    def _check_process(self) -> None:
        if os.getpid() != self._process:  # ZeroMQ's threads are not forked: nothing would ever answer
            raise UsageError(
                f"this client belongs to process {self._process}, which this one was forked from: "
                "create one here with make_client"
            )

    def _assert_open(self) -> None:
        if self._is_closed:
            raise UsageError("this client is closed: create another one with make_client")


def _to_markdown(service: str, task: str, results: Results) -> str:
    from .jobs.markdown import to_markdown  # noqa: PLC0415  few programs need it

    return to_markdown(service, task, results)
