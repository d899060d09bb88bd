"""Many tokens: the time to list them all, and the memory of the worker that holds them."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator

from performance.figures import Figure
from performance.shell_times import COMMAND, RESULT_END
from performance.token_counts import MANY
from subjects.processes import BenchError, resident_megabytes
from subjects.sites import Reference, Sites, Worker

from nfcli.models.environment.paths import DEFAULT_WORKER

SETTLED_SECONDS = 2.0
ROUNDS = 3
_LIST_TARGET_S = 2.0
_IDLE_TARGET_MB, _FULL_TARGET_MB = 110, 200


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure idle memory, then listings in turn with the reference, then memory again."""
    with sites.worker(tokens=0) as worker, sites.reference(tokens=0) as reference:
        time.sleep(SETTLED_SECONDS)
        yield _memory("worker's memory, idle", worker, reference, _IDLE_TARGET_MB)
    with sites.worker(tokens=MANY) as worker, sites.reference(tokens=MANY) as reference:
        before = resident_megabytes(worker.pid)
        ours: list[tuple[float, float]] = []
        theirs: list[float] = []
        for _ in range(ROUNDS):
            ours.append(_list(sites, worker))
            if reference is not None:
                theirs.append(_reference_list(reference))
        seconds, whole = (statistics.median(each[index] for each in ours) for index in (0, 1))
        yield Figure(
            f"list {MANY:,} tokens, rendered",
            seconds,
            "s",
            reference=statistics.median(theirs) if theirs else None,
            target=f"<= {_LIST_TARGET_S:g} s",
            met=seconds <= _LIST_TARGET_S,
            details={"whole process s": whole},
        )
        # After the listings: what they leave behind counts.
        yield _memory(f"worker's memory, {MANY:,} tokens", worker, reference, _FULL_TARGET_MB, before)


def _memory(
    work: str, worker: Worker, reference: Reference | None, target: float, before: float | None = None
) -> Figure:
    ours = resident_megabytes(worker.pid)
    details = {} if before is None else {"before listings MB": before}
    theirs = None
    if reference is not None:
        processes = {name: resident_megabytes(pid) for name, pid in reference.call("processes").items()}
        theirs = processes[DEFAULT_WORKER]
        details |= {"reference's processes": float(len(processes)), "all of them MB": sum(processes.values())}
    return Figure(work, ours, "MB", theirs, f"<= {target} MB", ours <= target, details)


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
    if lines != MANY + 1:
        raise BenchError(f"{lines} lines for {MANY} tokens")
    return end - start, end - began


def _reference_list(reference: Reference) -> float:
    seconds, count = reference.call("list_seconds")
    if count != MANY:
        raise BenchError(f"the reference lists {count} of {MANY} tokens")
    return float(seconds)
