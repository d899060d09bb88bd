"""The composition root: opens the parts of a worker in order, and closes them in the opposite one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from ..models.certificates.summary import CertificateSummary
from ..models.environment.curve_keys import ensure_key_pair, find_audit_key
from ..models.environment.file_lock import FileLock
from ..models.environment.fleet_key import ensure_fleet_key
from ..models.environment.paths import Environment
from ..models.environment.worker_lease import wait_until_unused
from ..models.environment.worker_lock import WorkerLock
from ..models.errors import EXIT_FAILED, EXIT_OK, NfcliError
from ..models.inventory.loader import locate_key
from ..models.protocol.frames import ANY
from .admission.admission import Admission
from .admission.replay_memory import ReplayMemory
from .audit.actor import Actor, http_actor
from .audit.fingerprints import FINGERPRINT_PURPOSE
from .audit.trail import OWN_ACTOR, AuditTrail
from .configuration.loading import Configuration
from .configuration.reloading import Reloader
from .fabric.client import FabricClient
from .http.forwarding.origin import TrustedProxies
from .http.listener import HttpListener, check_exposure
from .http.middleware import RequestMiddleware
from .http.public.readiness import Readiness
from .http.server import HttpServer
from .http.tls.certificates import ServerCertificate
from .jobs.executor import JobExecutor
from .jobs.plugins import add_plugins
from .jobs.task import TaskRegistry
from .jobs.task_context import TaskContext
from .mcp.app import build_app
from .mcp.questions.sessions import SESSION_PURPOSE
from .mcp.result_budget import ResultBudget
from .tasks import audit, auth, backup, health, introspection, jobs, operations, token_import, token_sync, tools
from .tasks.process_stats import resident_mbyte
from .tokens.fallback.disk_space import Reserve
from .tokens.store import TokenStore
from .tokens.transfers import Transfers
from .tools.catalogue import ToolCatalogue
from .tools.discovery import Discovery
from .tools.policy import ToolPolicy
from .transport.broker import BrokerTransport
from .transport.broker_jobs import fabric_client_name
from .transport.curve_auth import AuthorizedKeys
from .transport.direct import DirectServer
from .watchdog import MemoryWatchdog

if TYPE_CHECKING:
    from .metrics.server import MetricsServer

log = logging.getLogger(__name__)

TASK_MODULES = (audit, auth, backup, health, introspection, jobs, operations, token_import, token_sync, tools)
STOP_DEADLINE_SECONDS = 4.5
SWEEP_SECONDS = 1.0
SWEEP_RETRY_SECONDS = 10.0


class Worker:
    """One worker: its parts, and the order they are opened and closed in.

    Jobs come from the configuration's broker, or without one from clients that connect to the worker itself.
    `start` and `close` need no event loop; `serve` and `request_stop` belong to one.

    Expired tokens are removed every `sweep_seconds`, after a failure in `sweep_retry_seconds`. The process ends in any
    case `stop_deadline_seconds` after a request to stop; None: it waits for all parts.
    """

    def __init__(
        self,
        environment: Environment,
        name: str,
        configuration: Configuration,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
        sweep_retry_seconds: float = SWEEP_RETRY_SECONDS,
        stop_deadline_seconds: float | None = STOP_DEADLINE_SECONDS,
    ) -> None:
        self.environment = environment
        self.name = name
        self.inventory = configuration.inventory
        self.broker = configuration.broker
        self._sweep_seconds = sweep_seconds
        self._sweep_retry_seconds = sweep_retry_seconds
        self._stop_deadline_seconds = stop_deadline_seconds
        self._opened = ExitStack()
        self._stop_requested = asyncio.Event()
        self._exit_status = EXIT_OK
        self._certificate: ServerCertificate | None = None
        self._lease: FileLock | None = None

    def start(self) -> None:
        """Open all parts; connections and jobs are accepted from here on.

        Raises:
            NfcliError: a part can't be opened; those already open are closed again.
        """
        try:
            self._open()
        except BaseException:
            self._opened.close()
            raise

    def _open(self) -> None:
        environment, name, inventory, enter = self.environment, self.name, self.inventory, self._opened.enter_context
        check_exposure(inventory)
        self._certificate = ServerCertificate.of(inventory, environment.folder)
        Reserve(environment.tokens_folder(name)).release_if_full()
        lock = WorkerLock.acquire(environment.lock_file(name))
        self._opened.callback(lock.release)
        fleet_key = ensure_fleet_key(environment)
        registry = TaskRegistry(*TASK_MODULES)
        add_plugins(registry, inventory.plugins, environment.folder)
        older_key = find_audit_key(environment.audit_key_file(name))
        audit_key = fleet_key.derive(FINGERPRINT_PURPOSE)
        trail = enter(AuditTrail(environment.audit_file(name), audit_key, *filter(None, [older_key])))
        recovery = trail.before_commit(OWN_ACTOR)
        store = enter(TokenStore(environment.tokens_folder(name), fleet_key=fleet_key, recovery=recovery))
        transfers = self._open_transfers()
        listener = enter(HttpListener.bind(inventory, partial(locate_key, environment, name, "port")))
        own_tasks = (spec.entry() for spec in registry)
        catalogue = ToolCatalogue(name, inventory.service, own_tasks, ToolPolicy(inventory.tools))
        fabric, discovery = self._open_fabric(catalogue)
        self.context = TaskContext(
            name=name,
            service=inventory.service,
            inventory=inventory,
            stopping=threading.Event(),
            environment=environment,
            fleet_key=fleet_key,
            registry=registry,
            store=store,
            audit=trail,
            catalogue=catalogue,
            transfers=transfers,
            clock=time.time,
            started=time.time(),
            broker=self.broker,
            discovery=discovery,
            fabric=fabric,
            url=listener.url,
            watchdog=MemoryWatchdog(inventory, resident_mbyte),
        )
        self.reloader = Reloader(environment, name, inventory)
        self._open_http(listener, fabric)
        self._open_transport()
        self.executor.start()
        self.transport.start()  # from here on jobs come
        if fabric is not None and discovery is not None:
            fabric.start()
            discovery.start()
        started = datetime.fromtimestamp(self.context.started, UTC).isoformat()
        lock.publish(ready=True, endpoint=self.context.endpoint, url=self.context.url, started=started)

    def _open_transfers(self) -> Transfers:
        transfers = Transfers(self.environment.run_folder, self.name)
        transfers.close()  # a worker of this name that was killed has left its files
        self._opened.callback(transfers.close)
        return transfers

    def _open_fabric(self, catalogue: ToolCatalogue) -> tuple[FabricClient | None, Discovery | None]:
        """Return what sends jobs to other services and what finds their tasks; neither exists without a broker."""
        if self.broker is None:
            return None, None
        fabric = FabricClient(self.name, self.broker, ensure_key_pair(self.environment.keys_folder, self.name))
        discovery = Discovery(
            self.inventory.service,
            catalogue,
            list_workers=fabric.workers,
            list_tasks=lambda service, seconds: fabric.submit(service, "list_tasks", {}, timeout=seconds, target=ANY),
            is_settling=fabric.is_settling,
        )
        # Called last to first: the client ends the jobs that discovery waits for.
        self._opened.callback(discovery.stop)
        self._opened.callback(fabric.stop)
        self._opened.callback(discovery.request_stop)
        return fabric, discovery

    def _open_metrics(self) -> None:
        """Bind the address of the metrics, if the inventory has one."""
        self.metrics: MetricsServer | None = None
        if self.inventory.metrics is not None:
            from .metrics.server import MetricsServer  # noqa: PLC0415  takes 0.2 s, and 10 MB

            self.metrics = MetricsServer.bind(self.inventory, self.inventory.metrics)
            self._opened.callback(self.metrics.close)
            self.metrics.watch(self.context)
            self.context.metrics_url = self.metrics.url

    def _open_http(self, listener: HttpListener, fabric: FabricClient | None) -> None:
        self._open_metrics()
        context, proxies = self.context, TrustedProxies(self.inventory.trusted_proxies)
        results = ResultBudget()
        context.counters["mcp"] = results.counters
        app = build_app(
            self.name,
            listener.url,
            self.inventory,
            store=context.store,
            catalogue=context.catalogue,
            run_task=context.run_tool,
            read_arguments=context.registry.read_arguments,
            run_job=None if fabric is None else partial(fabric.run_job, timeout=self.inventory.tools.timeout),
            on_rejected=lambda address, reason, token: context.audit.refused(http_actor(address), reason, token=token),
            readiness=Readiness(
                lambda: context.store.revocations.problem(is_thorough=True), is_stopping=context.stopping.is_set
            ),
            on_call=None if self.metrics is None else self.metrics.meters.tool_call,
            proxies=proxies,
            results=results,
            session_key=context.fleet_key.derive(SESSION_PURPOSE),
        )
        self._add_reloads(app, proxies)
        served = app if self.metrics is None else self.metrics.counting(app)
        context.certificate = self._certificate_summary
        self.http = HttpServer(
            served, listener, on_stop=app.close_streams, proxies=proxies, certificate=self._certificate
        )

    def _add_reloads(self, app: RequestMiddleware, proxies: TrustedProxies) -> None:
        context, url, add = self.context, self.context.url, self.reloader.add
        add("allowed_hosts", "allowed_origins", prepare=lambda new: partial(app.allow_hosts, new, url))
        add("trusted_proxies", prepare=lambda new: partial(proxies.replace, new.trusted_proxies))
        add("tools", prepare=lambda new: partial(context.catalogue.apply_policy, ToolPolicy(new.tools)))
        add(prepare=lambda new: partial(setattr, context, "inventory", new))
        if (metrics := self.metrics) is not None:
            add(prepare=lambda new: partial(metrics.allow_hosts, new))
        if (certificate := self._certificate) is not None:
            add("tls", prepare=lambda new: certificate.prepare(new.tls))

    def _open_admission(self, clients: AuthorizedKeys) -> Admission:
        replays = ReplayMemory(self.environment.signed_jobs_file(self.name), clock=self.context.clock)
        return Admission(
            worker=self.name,
            service=self.inventory.service,
            clients=clients,
            replays=self._opened.enter_context(replays),
            is_direct=self.broker is None,
            requires_signatures=self.inventory.signed_jobs == "required",
            allowed_relays=frozenset(self.inventory.allowed_relays),
        )

    def _open_transport(self) -> None:
        context, environment = self.context, self.environment
        keys = ensure_key_pair(environment.keys_folder, self.name)
        clients = AuthorizedKeys(environment.clients_folder, environment.verifiers_folder)
        admission = self._open_admission(clients)
        on_job = None if self.metrics is None else self.metrics.meters.job
        self.transport: DirectServer | BrokerTransport
        if self.broker is None:
            self.executor = JobExecutor(
                context,
                lambda key: Actor(clients.name(key), authenticated="curve"),
                admission=admission,
                on_job=on_job,
            )
            self.transport = direct = DirectServer(context, self.executor, keys=keys, clients=clients)
            self._opened.callback(direct.stop)
            context.endpoint = direct.bind(self.inventory.endpoint or environment.socket_endpoint(self.name))
        else:
            if self.broker.key is not None and self.broker.key.notice:
                log.warning("broker: %s", self.broker.key.notice)
            self.executor = JobExecutor(context, fabric_client_name, admission=admission, on_job=on_job)
            self.transport = joined = BrokerTransport(context, self.executor, address=self.broker, keys=keys)
            self._opened.callback(joined.stop)
            context.endpoint = joined.connect()
        context.jobs = self.executor.history
        context.counters.update(jobs=self.executor.counters, messaging=self.transport.counters, http=self.http.counters)

    def _certificate_summary(self) -> CertificateSummary | None:
        return None if self._certificate is None else self._certificate.summary

    def warnings(self) -> list[str]:
        """Return what the person who starts this worker should change, a line each."""
        return self.inventory.warnings() + ([] if self._certificate is None else self._certificate.warnings())

    async def serve(self) -> int:
        """Serve until a stop is requested or a part ends by itself; return the exit status."""
        http = asyncio.create_task(self.http.serve())
        http.add_done_callback(lambda _task: self._stop_after("HTTP server"))
        sweep = asyncio.create_task(self._sweep())
        if self.metrics is not None:
            metrics = asyncio.create_task(self.metrics.serve())
            metrics.add_done_callback(self._log_end_of_metrics)
        call_after(self.transport.wait, partial(self._stop_after, "ZeroMQ thread"))
        await self._stop_requested.wait()
        sweep.cancel()
        await self._stop(http)
        return self._exit_status

    async def _stop(self, http: asyncio.Task[None]) -> None:
        if self._stop_deadline_seconds is not None:
            _exit_after(self._stop_deadline_seconds, self._exit_status)
        log.info("stopping")
        await asyncio.gather(asyncio.to_thread(self.executor.stop), self.http.stop(), return_exceptions=True)
        if self.metrics is not None:
            await self.metrics.stop()
        http.cancel()
        await asyncio.gather(http, return_exceptions=True)

    def close(self) -> None:
        """Close all parts, in the opposite order of opening."""
        self._opened.close()
        log.info("stopped")

    def wait_until_unused(self) -> None:
        """Block until the shell that started this worker, and all others that use it, have ended; admit no more."""
        wait_for_end_of_stdin()
        try:
            self._lease = wait_until_unused(self.environment.lock_file(self.name))
        except (OSError, NfcliError) as error:
            log.warning("cannot determine which shells use this worker: %s", error)

    def is_responsive(self) -> bool:
        """Whether the ZeroMQ thread serves; the loop does while its thread can call this."""
        return self.transport.is_responsive()

    def request_stop(self) -> None:
        """Make `serve` return; from the loop's thread."""
        self._stop_requested.set()

    def _stop_after(self, part: str) -> None:
        """Stop with a failure after a part that has ended by itself."""
        if not self._stop_requested.is_set():
            log.critical("the %s ended unexpectedly; shutting down", part)
            self._exit_status = EXIT_FAILED
            self.request_stop()

    def _log_end_of_metrics(self, task: asyncio.Task[None]) -> None:
        """Log that metrics are no longer served; MCP is."""
        if not self._stop_requested.is_set():
            reason = "" if task.cancelled() or task.exception() is None else f": {type(task.exception()).__name__}"
            log.error("metrics are no longer served%s: restart the worker", reason)

    async def _sweep(self) -> None:
        """Remove expired tokens from disk soon: a clock set back and a crash must not bring them back."""
        seconds = self._sweep_seconds
        published = None
        while True:
            await asyncio.sleep(seconds)
            seconds = self._sweep_seconds
            if published is None and (published := self.environment.publication_problem()):
                log.critical("%s", published)  # NorFab was started here after this worker
            if self.context.watchdog is not None and self.context.watchdog.check():
                self._stop_after("memory watchdog")
            self.context.transfers.expire()
            self.executor.forget_tokens(time.monotonic())
            store = self.context.store
            store.states.ranges.expire()
            if self._certificate is not None:
                await asyncio.to_thread(self._certificate.reload_if_changed)
            try:
                if not store.revocations.is_settled:
                    await asyncio.to_thread(store.run, store.revocations.maintain)
                if store.has_expired():
                    await asyncio.to_thread(store.sweep)
            except NfcliError as error:
                log.warning("expired tokens not removed from disk: %s", error)
                seconds = self._sweep_retry_seconds


def _exit_after(seconds: float, status: int) -> None:
    """End the process after `seconds` whatever hangs: a stuck disk must not keep a service manager waiting."""
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


def call_after(wait: Callable[[], None], then: Callable[[], None]) -> None:
    """Call `wait` in a daemon thread, and `then` on the running loop once it returns."""
    loop = asyncio.get_running_loop()

    def run() -> None:
        wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything has ended
            loop.call_soon_threadsafe(then)

    threading.Thread(target=run, name="watch", daemon=True).start()


def wait_for_end_of_stdin(on_data: Callable[[], None] = lambda: None) -> None:
    """Block until stdin reaches EOF, including when the parent dies; `on_data` is called when something is read."""
    while os.read(0, 4096):
        on_data()
