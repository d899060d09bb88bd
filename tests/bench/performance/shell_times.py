"""How long the shell takes: to its prompt, to its end, for one command, and for a script of many."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
from performance.figures import Figure
from subjects.processes import BenchError
from subjects.sites import TOKEN, Reference, Sites, Worker

ROUNDS = 5
COMMANDS = 1_000
COMMAND = f"fastmcp auth check-token token {TOKEN}"
RESULT_END = b"}\n"
_PROMPT_TARGET_S, _EXIT_TARGET_S, _COMMAND_TARGET_S, _SCRIPT_TARGET = 0.7, 0.2, 0.7, 500

_Samples = dict[str, list[float]]


def measure(sites: Sites) -> Iterator[Figure]:
    """Measure with a worker that runs already; the reference's shell runs as a client only, beside its fabric."""
    with sites.worker() as worker, sites.reference() as reference:
        samples: _Samples = {}
        for _ in range(ROUNDS):
            _round(samples, sites, worker, reference)
        rates, wholes = zip(*(_script(sites, worker) for _ in range(3)), strict=True)
    floor = statistics.median(samples["picle"]) - statistics.median(samples["python"])
    yield Figure("floor: importing picle", floor, "s")
    yield _figure("to the prompt", samples, "prompt", _PROMPT_TARGET_S)
    yield _figure("from exit to its end", samples, "exit", _EXIT_TARGET_S)
    yield _figure("one command, whole process", samples, "command", _COMMAND_TARGET_S)
    rate = statistics.median(rates)
    target = f">= {_SCRIPT_TARGET} /s"
    details = {"whole process s": statistics.median(wholes)}
    yield Figure(
        f"{COMMANDS:,} commands on stdin", rate, "/s", target=target, met=rate >= _SCRIPT_TARGET, details=details
    )


def _round(samples: _Samples, sites: Sites, worker: Worker, reference: Reference | None) -> None:
    """Let everything have its turn once."""
    start = _shell(sites, worker)
    _add(samples, "python", _program([sys.executable, "-c", "pass"]))
    _add(samples, "picle", _program([sys.executable, "-c", "import picle"]))
    prompt, end = _interactive(start, worker.environment.folder)
    _add(samples, "prompt", prompt)
    _add(samples, "exit", end)
    _add(samples, "command", _program([*start, *COMMAND.split()], b"true"))
    if reference is not None:
        command = [str(sites.reference_nfcli), "-c", "-i", str(reference.folder / "inventory.yaml")]
        prompt, end = _interactive(command, reference.folder)
        _add(samples, "reference prompt", prompt)
        _add(samples, "reference exit", end)


def _add(samples: _Samples, name: str, seconds: float) -> None:
    samples.setdefault(name, []).append(seconds)


def _figure(work: str, samples: _Samples, name: str, target: float) -> Figure:
    ours, theirs = statistics.median(samples[name]), samples.get(f"reference {name}")
    reference = statistics.median(theirs) if theirs else None
    details = {"slowest s": max(samples[name])}
    return Figure(work, ours, "s", reference, f"<= {target:g} s", ours <= target, details)


def _shell(sites: Sites, worker: Worker) -> list[str]:
    return [str(sites.nfcli), "-i", str(worker.environment.inventory_file)]


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


def _program(command: list[str], expected: bytes = b"") -> float:
    """Run a program to its end; return the seconds."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    if expected not in done.stdout:
        raise BenchError(f"{command[0]} says {done.stdout!r}")
    return time.perf_counter() - began


def _script(sites: Sites, worker: Worker) -> tuple[float, float]:
    """Run commands from a file on stdin; return how many a second came after the first, and the whole time."""
    file = sites.new_folder() / "commands"
    file.write_text(f"{COMMAND}\n" * COMMANDS)
    began = time.perf_counter()
    first_seen, at_first, results = began, 0, 0
    with (
        file.open("rb") as commands,
        subprocess.Popen(_shell(sites, worker), stdin=commands, stdout=subprocess.PIPE) as process,
    ):
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
