"""The client: send a job to workers, merge what they answer, name those that don't."""

from __future__ import annotations

import random
import threading
import time
import uuid as uuids
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from ..models.environment import Environment
from ..models.errors import NfcliError, NoWorkersError, ProtocolError, UsageError
from ..models.inventory import Inventory
from ..models.keys import KeyPair
from ..models.nfp import (
    ALL,
    ANY,
    BROKER_SERVICE,
    ClientMessage,
    Command,
    Status,
    decode_data,
    decode_object,
    encode_data,
)
from ..models.nfp import BrokerMessage as Message
from ..models.result import DEFAULT_TIMEOUT_SECONDS, ResultStatus, failed_result, whole_result
from .transport import Answer, Lost, Transport

MMI_TIMEOUT_SECONDS = 3.0
_REASON_CHARACTERS = 2_000

Results = dict[str, dict[str, Any]]


class Client:
    """Runs jobs on workers; made by `NorFab.make_client`.

    All methods may be called from any thread; jobs of one client run one after the other. Leaving a job early
    (KeyboardInterrupt) is safe: its late answers are dropped.

    `before_first_job` is called once, and what it raises is raised by the job; `restart` with the name of each target
    of a later job that isn't running, and the NfcliError that it raises is why that one isn't reached.
    """

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair,
        transport: Transport,
        *,
        before_first_job: Callable[[], None] | None = None,
        restart: Callable[[str], None] | None = None,
    ) -> None:
        self.environment = environment
        self.inventory = inventory
        self._keys = keys
        self._transport = transport
        self._before_first_job = before_first_job
        self._restart = restart
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client can't be used again."""
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
    ) -> Results:
        """Run a task and return `{worker: Result as a dict}`, one entry for each targeted worker.

        Args:
            service: service the workers have to serve, `fastmcp`; `all` for every service.
            task: name of the task.
            uuid: the job's name; the same one sent twice is run once and answered twice alike. Random by default.
            args: not supported by these workers unless empty: name each argument in `kwargs`.
            kwargs: the task's arguments.
            workers: `all`, `any` (one that answers, chosen at random), a name, or a list of names.
            timeout: seconds for the whole job, waits for connections included.

        A worker that failed, went away or didn't answer in time has an entry too, with `failed` true, one line in
        `errors`, and status `error` or `timeout`.

        Raises:
            NoWorkersError: unknown service or worker name, or none of the targeted workers could be reached.
            AccessDeniedError: every worker that could be reached refused this client's key.
            UsageError: arguments that are no JSON, a timeout that isn't a positive number, or a client that is closed.
        """
        data = _request_data(task, args, kwargs, timeout)
        with self._lock:
            self._assert_open()
            names = self._targets(service, workers)
            not_started = self._see_to_workers(names)
            job = _Job(service, task, uuid or uuids.uuid4().hex, data, timeout)
            job.not_started = not_started
            if workers == ANY:
                return self._run_on_any(job, names)
            return self._run(job, names)

    def worker_names(self, service: str = ALL) -> list[str]:
        """Return the names of the workers of a service, running or not."""
        return self._transport.candidates(service)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status (`alive`, `dead`), endpoint, seconds up, note."""
        rows = []
        with self._lock:
            self._assert_open()
            for name in self._transport.candidates(ALL):
                row = {"name": name, "service": self.inventory.workers[name].service}
                try:
                    alive = self._ask_worker(name)
                    row |= {"status": "alive", "endpoint": self._transport.endpoint(name)}
                    row |= {"alive (s)": alive.get("alive (s)", ""), "note": ""}
                except NfcliError as error:
                    row |= {"status": "dead", "endpoint": "", "alive (s)": "", "note": str(error)}
                rows.append(row)
        return rows

    def describe(self) -> dict[str, Any]:
        """Return what this client is: environment, public key, workers it knows."""
        return {
            "environment": str(self.environment.folder),
            "inventory": str(self.environment.inventory_file or "built-in default"),
            "public_key": self._keys.public.decode(),
            "keys": str(self.environment.keys_folder),
            "workers": self.worker_names(),
        }

    def _assert_open(self) -> None:
        if self._is_closed:
            raise UsageError("this client is closed: make another one with make_client")

    def _see_to_workers(self, names: list[str]) -> dict[str, NfcliError]:
        """Let workers be started that a job needs; return by name why one that has ended can't be started again."""
        not_started: dict[str, NfcliError] = {}
        if self._before_first_job is not None:
            self._before_first_job()
            self._before_first_job = None
        elif self._restart is not None:
            for name in names:
                try:
                    if not self._transport.is_running(name):
                        self._restart(name)
                except NfcliError as error:
                    not_started[name] = error
        return not_started

    def _targets(self, service: str, workers: str | Sequence[str]) -> list[str]:
        candidates = self._transport.candidates(service)
        if not candidates:
            services = sorted({worker.service for worker in self.inventory.workers.values()})
            raise NoWorkersError(f"no worker serves {service!r}: the inventory has {_listed(services)}")
        if workers in (ALL, ANY):
            return candidates
        names = [workers] if isinstance(workers, str) else list(dict.fromkeys(workers))
        if not names:
            raise NoWorkersError("the list of workers is empty: name at least one, or say all")
        unknown = [name for name in names if name not in candidates]
        if unknown:
            raise NoWorkersError(f"unknown worker {_listed(map(repr, unknown))}: there is {_listed(candidates)}")
        return names

    def _run_on_any(self, job: _Job, names: list[str]) -> Results:
        """Try one worker after the other, until one is there to take the job."""
        failure: NoWorkersError | None = None
        for name in random.sample(names, len(names)):
            try:
                return self._run(job, [name])
            except NoWorkersError as error:
                failure = error
        raise failure or NoWorkersError("there is no worker")

    def _run(self, job: _Job, names: list[str]) -> Results:
        job.missing = set(names)
        for name in names:
            self._send(job, name, Command.POST)
        while job.missing and time.monotonic() < job.deadline:
            for event in self._transport.receive(sorted(job.missing), job.deadline):
                if isinstance(event, Lost):
                    self._lost(job, event)
                elif event.message.uuid == job.uuid and event.worker in job.missing:
                    self._answered(job, event)
        for name in sorted(job.missing):
            job.fail(name, f"no answer within {job.timeout:g} s", ResultStatus.TIMEOUT)
        if job.unreached.keys() >= set(names):
            raise _unreachable(job.unreached)
        return {name: job.results[name] for name in sorted(names)}

    def _send(self, job: _Job, name: str, command: bytes) -> None:
        message = ClientMessage(command, job.service, name.encode(), job.uuid, job.data)
        try:
            self._transport.send(name, message)
        except NoWorkersError as error:
            job.lose(name, job.not_started.get(name, error))

    def _lost(self, job: _Job, event: Lost) -> None:
        """Ask a worker that went away for the result once more: it may only have been the connection."""
        if event.was_up and event.worker not in job.asked_again:
            job.asked_again.add(event.worker)
            self._send(job, event.worker, Command.GET)
        else:
            job.lose(event.worker, event.error)

    def _answered(self, job: _Job, event: Answer) -> None:
        message, name = event.message, event.worker
        if message.command != Command.RESPONSE:
            return
        if message.status == Status.DONE:
            job.results[name] = _own_result(message, name)
            job.missing.discard(name)
        elif message.status == Status.FORBIDDEN:
            job.fail(name, f"{_reason(message)}: put its .key file back into the worker's .nfcli/clients/")
        elif message.status == Status.NOT_FOUND and name in job.asked_again:
            job.fail(name, "the worker was restarted while the job ran: look what it has done before you repeat it")
        elif Status.is_error(message.status):
            job.fail(name, _reason(message))

    def _ask_worker(self, name: str) -> dict[str, str]:
        """Return the row in which a worker shows itself (MMI `show_workers`)."""
        job = _Job(BROKER_SERVICE, "show_workers", uuids.uuid4().hex, b'{"task":"show_workers"}', MMI_TIMEOUT_SECONDS)
        self._transport.send(name, ClientMessage(Command.MMI, job.service, b"all", job.uuid, job.data))
        while time.monotonic() < job.deadline:
            for event in self._transport.receive([name], job.deadline):
                if isinstance(event, Lost):
                    raise event.error
                if event.message.uuid != job.uuid:
                    continue
                if event.message.status != Status.DONE:
                    raise NoWorkersError(_reason(event.message))
                return _own_row(event.message, name)
        raise NoWorkersError(f"no answer within {MMI_TIMEOUT_SECONDS:g} s")


class _Job:
    """One job while it is waited for; its deadline is computed once."""

    def __init__(self, service: str, task: str, uuid: str, data: bytes, timeout: float) -> None:
        self.service = service
        self.task = task
        self.uuid = uuid
        self.data = data
        self.timeout = timeout
        self.not_started: dict[str, NfcliError] = {}
        self.deadline = time.monotonic() + timeout
        self.missing: set[str] = set()
        self.asked_again: set[str] = set()
        self.unreached: dict[str, NfcliError] = {}
        self.results: Results = {}

    def fail(self, name: str, reason: str, status: ResultStatus = ResultStatus.ERROR) -> None:
        """Give a worker a failed result."""
        self.results[name] = failed_result(reason, status, task=self.task, juuid=self.uuid, service=self.service)
        self.missing.discard(name)

    def lose(self, name: str, error: NfcliError) -> None:
        """Give a worker that can't be reached, or not any more, a failed result."""
        if name in self.asked_again:
            look = "look what it has done before you repeat it"
            self.fail(name, f"worker {name} has gone away while the job ran: {look}")
        else:
            self.unreached[name] = error
            self.fail(name, str(error))


def _request_data(task: str, args: Sequence[Any] | None, kwargs: dict[str, Any] | None, timeout: float) -> bytes:
    if not 0 < timeout < float("inf"):
        raise UsageError(f"timeout must be a positive number of seconds, got {timeout}")
    request = {"task": task, "kwargs": kwargs or {}, "args": list(args or ()), "timeout": timeout}
    try:
        return encode_data(request)
    except (TypeError, ValueError):
        raise UsageError(f"the arguments of {task} must be values that JSON knows, in valid Unicode") from None


def _own_result(message: Message, name: str) -> dict[str, Any]:
    try:
        result = decode_object(message.data).get(name)
    except ProtocolError:
        result = None
    return whole_result(result)


def _own_row(message: Message, name: str) -> dict[str, str]:
    try:
        rows = decode_data(message.data)
    except ProtocolError:
        rows = None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") == name:
            return row
    raise NoWorkersError("the worker's answer doesn't name it")


def _reason(message: Message) -> str:
    try:
        payload = decode_object(message.data)
    except ProtocolError:
        payload = {}
    for said in (payload.get("error"), payload.get("status")):
        if isinstance(said, str) and said:
            return said[:_REASON_CHARACTERS]
    return f"status {message.status}"


def _unreachable(unreached: dict[str, NfcliError]) -> NfcliError:
    """Return the one error for a job that reached nobody: its class says whether the key or the worker is missing."""
    kinds = {type(error) for error in unreached.values()}
    kind = kinds.pop() if len(kinds) == 1 else NoWorkersError
    return kind("; ".join(dict.fromkeys(str(error) for error in unreached.values())))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
