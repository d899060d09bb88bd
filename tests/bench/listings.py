"""Many tokens: the time to list them all, and the memory of the worker that holds them."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator

from figures import Figure
from shell_times import COMMAND, RESULT_END
from sites import BenchError, Reference, Sites, Worker, resident_megabytes

from nfcli.models.environment import DEFAULT_WORKER

TOKENS = 100_000
SETTLED_SECONDS = 2.0
REPEATS = 3
_LIST_TARGET_S = 2.0
_IDLE_TARGET_MB, _FULL_TARGET_MB = 110, 200


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure idle memory, then the listing, then memory again."""
    with sites.worker(tokens=0) as worker, sites.reference(tokens=0) as reference:
        time.sleep(SETTLED_SECONDS)
        details = _fabric_memory(reference) if reference is not None else {}
        theirs = details.get("reference's worker MB")
        ours = resident_megabytes(worker.pid)
        target = f"<= {_IDLE_TARGET_MB} MB"
        yield Figure("worker's memory, idle", ours, "MB", theirs, target, ours <= _IDLE_TARGET_MB, details)
    with sites.worker(tokens=TOKENS) as worker, sites.reference(tokens=TOKENS) as reference:
        full = resident_megabytes(worker.pid)
        listed = [_list(sites, worker) for _ in range(REPEATS)]
        seconds, whole = (statistics.median(each[index] for each in listed) for index in (0, 1))
        yield Figure(
            f"list {TOKENS:,} tokens, worker to rendered table",
            seconds,
            "s",
            reference=_reference_list(reference) if reference is not None else None,
            target=f"<= {_LIST_TARGET_S} s",
            met=seconds <= _LIST_TARGET_S,
            details={"whole process s": whole},
        )
        details = {"after listings MB": resident_megabytes(worker.pid)}
        theirs = _fabric_memory(reference)["reference's worker MB"] if reference is not None else None
        target = f"<= {_FULL_TARGET_MB} MB"
        work = f"worker's memory with {TOKENS:,} tokens"
        yield Figure(
            work, full, "MB", theirs, target, max(full, details["after listings MB"]) <= _FULL_TARGET_MB, details
        )


def _list(sites: Sites, worker: Worker) -> tuple[float, float]:
    """Return the seconds from the first command's result to the end of the table, and of the whole process."""
    command = [str(sites.nfcli), "-i", str(worker.environment.inventory_file)]
    began = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        if process.stdin is None or process.stdout is None:
            raise BenchError("no pipes")
        process.stdin.write(f"{COMMAND}\n".encode())
        process.stdin.flush()
        while process.stdout.readline() != RESULT_END:
            pass
        start = time.perf_counter()
        process.stdin.write(b"fastmcp auth list-tokens\n")
        process.stdin.close()
        lines = process.stdout.read().count(b"\n")
        end = time.perf_counter()
    if lines != TOKENS + 1:
        raise BenchError(f"{lines} lines for {TOKENS} tokens")
    return end - start, end - began


def _reference_list(reference: Reference) -> float:
    seconds, count = reference.call("list_seconds")
    if count != TOKENS:
        raise BenchError(f"the reference lists {count} of {TOKENS} tokens")
    return float(seconds)


def _fabric_memory(reference: Reference) -> dict[str, float]:
    """Return the memory of the reference's worker and of all four of its processes."""
    processes = {name: resident_megabytes(pid) for name, pid in reference.call("processes").items()}
    return {
        "reference's worker MB": processes[DEFAULT_WORKER],
        "reference's processes": float(len(processes)),
        "reference's processes MB": sum(processes.values()),
    }
