"""The worker process: its arguments, its signals, and the line that it writes to stdout at its start.

That line is JSON: `{"event": "ready", …}` with the bound addresses, `{"event": "failed", …}` with the reason and the
exit status, or `{"event": "skipped", …}` with the service of a worker whose inventory, kept by the broker, names a
service other than `fastmcp`. Everything else goes to the log.

With `--until-stdin-ends`, `{"event": "alive"}` follows whenever something is written to stdin: unless the event loop or
the ZeroMQ thread hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import io
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from ..models.environment.core_dumps import forbid_core_dumps
from ..models.environment.locations import find_environment
from ..models.environment.paths import Environment, named_state
from ..models.errors import EXIT_FAILED, EXIT_OK, NfcliError
from ..models.inventory.loader import locate_state
from .configuration.loading import load_configuration
from .http.server import new_event_loop
from .logging import configure_logging
from .worker import Worker, call_after, wait_for_end_of_stdin

log = logging.getLogger(__name__)

MAX_DESCRIPTORS = 65_536
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES = -3, 128 * 1024  # malloc.h of glibc; bytes: its own first value


async def _serve(worker: Worker, stdout: IO[str], arguments: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.request_stop)
    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(worker, stdout))
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    url, endpoint = worker.context.url, worker.context.endpoint
    warnings = worker.warnings()
    log.info("ready at %s and %s", url, endpoint)
    for warning in warnings:
        log.warning("%s", warning)
    # The log has it first: who reads this line may move the file then.
    _write_event(
        stdout, event="ready", name=worker.name, url=url, endpoint=endpoint, pid=os.getpid(), warnings=warnings
    )
    if arguments.while_needed:
        call_after(worker.wait_until_unused, worker.request_stop)
    elif arguments.until_stdin_ends:

        def answer() -> None:
            if worker.is_responsive():
                _write_event(stdout, event="alive")

        def ask_loop() -> None:
            loop.call_soon_threadsafe(answer)

        call_after(partial(wait_for_end_of_stdin, ask_loop), worker.request_stop)
    return await worker.serve()


async def _reload(worker: Worker, stdout: IO[str]) -> None:
    """Read the inventory again, and report it."""
    try:
        done = await worker.reloader.reload()
    except NfcliError as error:
        log.error("nothing was changed: %s", error)
        _write_event(stdout, event="reloaded", error=str(error))
    else:
        log.info("read the inventory again: %s", done)
        _write_event(stdout, event="reloaded", done=done)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nfcli.worker", description="Run one nfcli worker.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--environment", type=Path, help="folder of the environment")
    where.add_argument("--inventory", type=Path, help="inventory file, where it isn't named inventory.yaml")
    parser.add_argument("--name", required=True, help="name of the worker in the inventory")
    parser.add_argument("--log-level", default="INFO", help="level of the log")
    parser.add_argument("--state", type=Path, help="folder of the state")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until-stdin-ends", action="store_true", help="stop when stdin is closed")
    until.add_argument(
        "--while-needed", action="store_true", help="stop when stdin is closed and no shell needs the worker any more"
    )
    return parser.parse_args(argv)


def _environment(arguments: argparse.Namespace) -> Environment:
    if arguments.environment is None:
        return locate_state(find_environment(arguments.inventory, arguments.state))
    folder = arguments.environment.resolve()
    file = folder / "inventory.yaml"
    return locate_state(Environment(folder, file if file.exists() else None, named_state(arguments.state)))


def _write_event(stdout: IO[str], **line: object) -> None:
    stdout.write(json.dumps(line) + "\n")
    stdout.flush()


def _keep_stdout() -> IO[str]:
    """Return stdout for the process's own line, and redirect what plugins and their child processes print to stderr.

    The process that started this one reads that line, and after it only waits for the end of the stream.
    """
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed is seen at once, as on a terminal
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until a signal or its other stop condition; return the exit status."""
    arguments = _arguments(argv)
    stdout: IO[str] = sys.stdout
    os.umask(0o077)
    signal.signal(signal.SIGHUP, lambda *_: None)  # what is read now is new
    forbid_core_dumps()
    _tune_malloc()
    _raise_descriptor_limit()
    # Until the log file is open, logging would print warnings on stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        environment = _environment(arguments)
        found = load_configuration(environment, arguments.name)
        if isinstance(found, str):
            _write_event(stdout, event="skipped", name=arguments.name, service=found)
            return EXIT_OK
        environment.prepare()
        configure_logging(environment.log_file(arguments.name), arguments.log_level)
        if found.inventory.plugins:
            stdout = _keep_stdout()
        worker = Worker(environment, arguments.name, found)
        worker.start()
        # These objects live until the end: collections that visit them take a tenth of the time of MCP requests.
        gc.collect()
        gc.freeze()
    except NfcliError as error:
        return _start_failed(stdout, arguments, str(error), error.exit_status)
    except Exception as error:
        log.exception("start failed")
        return _start_failed(stdout, arguments, f"internal error at start: {type(error).__name__}", EXIT_FAILED)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(worker, stdout, arguments))
    finally:
        worker.close()


def _tune_malloc() -> None:
    """Have glibc return large blocks to the system as soon as they are free.

    By default it raises its threshold with each such block: a few lists of 100,000 tokens would keep 130 MB.
    """
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have neither the call nor the threshold
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _raise_descriptor_limit() -> None:
    """Allow as many file descriptors as the system permits this process, up to `MAX_DESCRIPTORS`.

    Connections may use three quarters of them. More than that number can slow programs that a plugin starts.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # macOS reports more than it grants
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _start_failed(stdout: IO[str], arguments: argparse.Namespace, reason: str, status: int) -> int:
    log.critical("start failed: %s", reason)
    _write_event(stdout, event="failed", name=arguments.name, error=reason, exit_status=status)
    if not (arguments.until_stdin_ends or arguments.while_needed):  # else an nfcli reports it
        sys.stderr.write(f"{arguments.name}: {reason}\n")
    return status
