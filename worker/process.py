"""The worker process in three phases: `start` opens everything in order, `serve` waits, `stop` closes it again.

On stdout comes one JSON line: `{"event": "ready", …}` with the bound addresses, `{"event": "failed", …}` with the
reason and the exit status, or `{"event": "skipped", …}` with the service of a worker that, as the broker says, isn't
one of ours. Everything else goes to the log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from ..models.environment.paths import Environment, find_environment
from ..models.errors import EXIT_FAILED, EXIT_OK, NfcliError
from .configuration import find_configuration
from .http.server import new_event_loop
from .logging import configure_logging
from .worker import WorkerProcess, _call_after, _wait_for_end_of_stdin

log = logging.getLogger(__name__)

_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES = -3, 128 * 1024  # malloc.h of glibc; bytes: its own first value


def _end_to_wait_for(process: WorkerProcess, arguments: argparse.Namespace) -> Callable[[], None] | None:
    if arguments.while_needed:
        return process.wait_until_unused
    return _wait_for_end_of_stdin if arguments.until_stdin_ends else None


async def _main(
    process: WorkerProcess, ready: dict[str, object], stdout: IO[str], until: Callable[[], None] | None
) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.ask_to_stop)
    _say(stdout, **ready)
    log.info("ready at %s and %s", process.worker.url, process.worker.endpoint)
    if until is not None:
        _call_after(until, process.ask_to_stop)
    return await process.serve()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nfcli.worker", description="Run one nfcli worker.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--environment", type=Path, help="folder of the environment")
    where.add_argument("--inventory", type=Path, help="inventory file, where it isn't named inventory.yaml")
    parser.add_argument("--name", required=True, help="name of the worker in the inventory")
    parser.add_argument("--log-level", default="INFO", help="level of the log")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--until-stdin-ends", action="store_true", help="stop when stdin is closed")
    until.add_argument(
        "--while-needed", action="store_true", help="stop when stdin is closed and no shell needs the worker any more"
    )
    return parser.parse_args(argv)


def _environment(arguments: argparse.Namespace) -> Environment:
    if arguments.environment is None:
        return find_environment(arguments.inventory)
    folder = arguments.environment.resolve()
    file = folder / "inventory.yaml"
    return Environment(folder, file if file.exists() else None)


def _say(stdout: IO[str], **line: object) -> None:
    stdout.write(json.dumps(line) + "\n")
    stdout.flush()


def _keep_stdout() -> IO[str]:
    """Return stdout for our own line; what plugins print, and programs that they start, goes where errors go.

    Whoever started us reads that one line, and after it only looks for the end of it all.
    """
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; return the exit status."""
    arguments = _arguments(argv)
    stdout: IO[str] = sys.stdout
    os.umask(0o077)
    _give_memory_back()
    # Until the log is open, logging would print what is said there on stderr, beside the one line that we print.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        environment = _environment(arguments)
        found = find_configuration(environment, arguments.name)
        if isinstance(found, str):
            _say(stdout, event="skipped", name=arguments.name, service=found)
            return EXIT_OK
        environment.prepare()
        configure_logging(environment.log_file(arguments.name), arguments.log_level, console=False)
        if found.inventory.plugins:
            stdout = _keep_stdout()
        process = WorkerProcess(environment, arguments.name, found.inventory, found.broker)
        ready = process.start()
        # What is there now stays: looking through it again and again takes a tenth of the time of MCP requests.
        gc.collect()
        gc.freeze()
    except NfcliError as error:
        return _start_failed(stdout, arguments.name, str(error), error.exit_status)
    except Exception as error:
        log.exception("the start failed")
        return _start_failed(stdout, arguments.name, f"internal error at start: {type(error).__name__}", EXIT_FAILED)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_main(process, ready, stdout, _end_to_wait_for(process, arguments)))
    finally:
        process.close()


def _give_memory_back() -> None:
    """Let large blocks go back to the system as soon as they are free.

    glibc raises its threshold for that with each such block: some listings of 100,000 tokens would leave 130 MB behind.
    """
    with contextlib.suppress(AttributeError, OSError):  # other libraries have no such call, and no such habit
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _start_failed(stdout: IO[str], name: str, reason: str, status: int) -> int:
    log.critical("not started: %s", reason)
    _say(stdout, event="failed", name=name, error=reason, exit_status=status)
    sys.stderr.write(f"{name}: {reason}\n")
    return status
