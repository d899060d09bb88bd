"""How long the shell takes: to its prompt, to its end, for one command, and for a script of many."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
from figures import Figure
from sites import TOKEN, BenchError, Sites

REPEATS = 7
COMMANDS = 1_000
COMMAND = f"fastmcp auth check-token token {TOKEN}"
RESULT_END = b"}\n"
_PROMPT_TARGET_S, _EXIT_TARGET_S, _COMMAND_TARGET_S, _SCRIPT_TARGET = 0.7, 0.2, 0.7, 500


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure with a worker that runs already; the reference's shell runs as a client only, beside its fabric."""
    with sites.worker() as worker, sites.reference() as reference:
        start = [str(sites.nfcli), "-i", str(worker.environment.inventory_file)]
        times = [_interactive(start, worker.environment.folder) for _ in range(REPEATS)]
        theirs: list[tuple[float, float]] = []
        if reference is not None:
            command = [str(sites.reference_nfcli), "-c", "-i", str(reference.folder / "inventory.yaml")]
            theirs = [_interactive(command, reference.folder) for _ in range(REPEATS)]
        yield from _interactive_figures(times, theirs)
        seconds = [_one_command(start) for _ in range(REPEATS)]
        yield Figure(
            "one command, worker running, whole process",
            statistics.median(seconds),
            "s",
            target=f"<= {_COMMAND_TARGET_S} s",
            met=statistics.median(seconds) <= _COMMAND_TARGET_S,
        )
        yield _script_figure(*_script(start, sites.new_folder() / "commands"))


def _interactive_figures(times: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> Iterator[Figure]:
    targets = (("shell to prompt, worker running", _PROMPT_TARGET_S), ("shell from exit to its end", _EXIT_TARGET_S))
    for index, (work, target) in enumerate(targets):
        ours = statistics.median(each[index] for each in times)
        yield Figure(
            work,
            ours,
            "s",
            reference=statistics.median(each[index] for each in theirs) if theirs else None,
            target=f"<= {target} s",
            met=ours <= target,
            details={"slowest s": max(each[index] for each in times)},
        )


def _interactive(command: list[str], folder: Path) -> tuple[float, float]:
    """Start a shell in a terminal and leave it; return the seconds to its prompt and from `exit` to its end."""
    start = time.perf_counter()
    with pexpect.spawn(command[0], command[1:], cwd=str(folder), timeout=60, dimensions=(24, 200)) as child:
        child.delaybeforesend = None
        child.expect_exact("nf#")
        prompt = time.perf_counter()
        child.send("exit\r")
        child.expect(pexpect.EOF)
        child.wait()
        return prompt - start, time.perf_counter() - prompt


def _one_command(start: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([*start, *COMMAND.split()], capture_output=True, check=True)
    if b"true" not in done.stdout:
        raise BenchError(f"the token is not there: {done.stdout!r}")
    return time.perf_counter() - began


def _script(start: list[str], file: Path) -> tuple[float, float]:
    """Run commands from a file on stdin; return how many a second came after the first, and the whole time."""
    file.write_text(f"{COMMAND}\n" * COMMANDS)
    began = time.perf_counter()
    first_seen, at_first, results = began, 0, 0
    with file.open("rb") as commands, subprocess.Popen(start, stdin=commands, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise BenchError("no stdout")
        while part := process.stdout.read1():  # type: ignore[attr-defined]
            results += part.count(RESULT_END)
            last_seen = time.perf_counter()
            if not at_first and results:
                first_seen, at_first = last_seen, results
    if results != COMMANDS:
        raise BenchError(f"{results} results for {COMMANDS} commands")
    return (results - at_first) / (last_seen - first_seen), last_seen - began


def _script_figure(rate: float, whole: float) -> Figure:
    return Figure(
        f"{COMMANDS:,} commands from stdin, after start",
        rate,
        "/s",
        target=f">= {_SCRIPT_TARGET} /s",
        met=rate >= _SCRIPT_TARGET,
        details={"whole process s": whole},
    )
