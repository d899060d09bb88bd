"""The soak: many mixed operations and MCP requests on one worker, which must be at the end what it was at the start.

    python tests/bench/soak.py [--operations N] [--requests N] [--clients N] [--markdown]

Several clients, each a process of its own, create, renew, delete, check and list tokens and send MCP requests with
good, wrong and deleted ones; each knows what every answer has to be, and a wrong one ends the soak. It runs in ten
stages. At the end of each everybody rests, and the worker's descriptors, threads and memory are looked at; the first
two warm it up. Prints tables and a line for each claim; the exit status is 1 if one is broken. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from endurance.soak_report import STAGES, Claim, Soaked, Stage, claims, report
from performance import machine
from subjects.processes import BenchError, Driver, Vitals, vitals
from subjects.sites import HERE, Sites, Worker, running

from nfcli import NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.worker.tokens.store import TokenStore

LIMIT = 10
SETTLE_SECONDS, LOOK_SECONDS = 5.0, 0.1
BRIEF_SECONDS = 1.5
_Ledger = set[tuple[str, str, bool]]


def main() -> int:
    """Run the soak; return the exit status."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="nf") as folder:
        os.environ["HOME"] = folder
        described = machine.description(Path(folder), None) | {"load before": machine.load()}
        environment = Sites(Path(folder), None).environment([], wrong_tokens_per_minute=LIMIT)
        with running(environment) as worker:
            soaked, ledger = _soak(worker, arguments)
            listed = _listed(environment)
        found = [*claims(soaked), *_kept(ledger, listed, _stored(environment))]
    sys.stdout.write(report(described, soaked, found, is_markdown=arguments.markdown))
    return 0 if all(claim.holds is not False for claim in found) else 1


def _soak(worker: Worker, arguments: argparse.Namespace) -> tuple[Soaked, _Ledger]:
    soaked = Soaked(vitals(worker.pid), arguments.clients)
    operations, requests = (
        count // (STAGES * arguments.clients) for count in (arguments.operations, arguments.requests)
    )
    with _clients(worker, arguments.clients) as clients:
        for number in range(1, STAGES + 1):
            start = time.perf_counter()
            for client in clients:
                client.ask("stage", operations=operations, requests=requests)
            took = [client.answer() for client in clients]
            seconds = time.perf_counter() - start
            stage = Stage(operations * len(clients), requests * len(clients), seconds, _settled(worker.pid), {})
            for by_kind in took:
                for kind, samples in by_kind.items():
                    stage.samples.setdefault(kind, []).extend(samples)
            soaked.stages.append(stage)
            sys.stderr.write(f"stage {number} of {STAGES}: {seconds:.1f} s\n")
        ledger = {(row[0], row[1], row[2]) for client in clients for row in client.call("ledger")}
    return soaked, ledger


@contextmanager
def _clients(worker: Worker, count: int) -> Iterator[list[Driver]]:
    with ExitStack() as opened:
        clients = []
        for number in range(count):
            folder = worker.environment.folder / f"client-{number}"
            folder.mkdir()
            inventory = str(worker.environment.inventory_file)
            command = [sys.executable, str(HERE / "endurance" / "soak_client.py"), inventory, worker.url, str(number)]
            clients.append(opened.enter_context(Driver.running(command, folder)))
        yield clients


def _settled(pid: int) -> Vitals:
    """Look at the worker when it has let go of the connections that were closed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    last, seen = None, vitals(pid)
    while last is None or (last.descriptors != seen.descriptors and time.monotonic() < deadline):
        time.sleep(LOOK_SECONDS)
        last, seen = seen, vitals(pid)
    return seen


def _listed(environment: Environment) -> _Ledger:
    """Return what the worker lists, once the tokens of a short life have ended theirs."""
    time.sleep(BRIEF_SECONDS)
    norfab = NorFab(inventory=environment.inventory_file)
    try:
        [answer] = norfab.make_client().run_job("fastmcp", "bearer_token_list").values()
    finally:
        norfab.destroy()
    if answer["failed"]:
        raise BenchError(f"the list failed: {answer['errors']}")
    return {(row["username"], row["token"], row["expires"] is not None) for row in answer["result"]}


def _stored(environment: Environment) -> _Ledger:
    """Return the tokens that are on disk after the worker's end."""
    with TokenStore(environment.tokens_folder(DEFAULT_WORKER)) as store:
        return {(record.username, record.token, record.expires is not None) for record in store.records()}


def _kept(ledger: _Ledger, listed: _Ledger, stored: _Ledger) -> Iterator[Claim]:
    for place, found in (("listed", listed), ("on disk", stored)):
        figure = f"{len(ledger):,}, {len(ledger - found)} missing, {len(found - ledger)} too many"
        yield Claim(f"tokens that clients know, {place}", figure, "the same", found == ledger)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Soak a worker.")
    parser.add_argument("--operations", type=int, default=100_000, metavar="N", help="100,000 by default")
    parser.add_argument("--requests", type=int, default=100_000, metavar="N", help="100,000 by default")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="4 by default")
    parser.add_argument("--markdown", action="store_true", help="print as the manual's page has it")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        sys.exit(f"the soak ended early: {problem}")
