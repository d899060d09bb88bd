"""Attack a client with the answers of a rogue worker, one that has the right key and says the wrong things.

    python tests/bench/attack_client.py [--answers N] [--seed N]

Each job is met with some captured answers, changed, random ones among them (`frame_mutants.py`), and then a good one.
It must end within its deadline in a result of the promised shape or in an error of ours; so must commands of the shell,
in one line. After each ten jobs a proper exchange must work. Exit status 1 when something was wrong.

tests/shell/transport/test_rogue_worker.py runs this too.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attacks.frame_mutants import FrameMutants, Frames, captured

from nfcli import Client, NfcliError
from nfcli.models.environment.paths import DEFAULT_WORKER
from nfcli.models.protocol.jobs import Result
from nfcli.shell.output.console import Console
from nfcli.shell.repl.session import Session

sys.path.append(str(Path(__file__).parents[1]))
from support.fabric.rogue_worker import answer, result, rogue_and_client

JOB_SECONDS = 5.0
MORE_SECONDS = 2.0
"""What a job may take beyond its time on a machine that does other things as well."""

ANSWERS_A_JOB = 8
JOBS_A_CHECK = 10
MAX_MORE_MEGABYTES = 64
_TYPES = {name: type(value) for name, value in Result().model_dump(mode="json").items() if value is not None}
_LINES = ("fastmcp auth list-tokens", "fastmcp auth check-token token x", "show fastmcp status", "show norfab workers")


class AnswerMutants:
    """Invalid answers to a job, most of them under its uuid."""

    def __init__(self, seed: int) -> None:
        self._mutants = FrameMutants(seed)
        self.chance = self._mutants.chance
        self._answers = [frames for frames in captured("broker", "client") if len(frames) == 7]

    def next(self, uuid: bytes) -> Frames:
        """Return the next one."""
        frames = list(self.chance.choice(self._answers))
        frames[4] = uuid
        frames[6] = frames[6].replace(b"fastmcp-worker-1", DEFAULT_WORKER.encode())
        kind = self.chance.random()
        if kind < 0.4:
            frames[6] = self._mutants.twist(frames[6])
        elif kind < 0.5:
            frames[5:] = [self.chance.choice((b"400", b"404", b"417", b"500", b"200")), self._mutants.twist(frames[6])]
        elif kind < 0.9:
            frames = self._mutants.spoil(frames)
        else:
            frames = self._mutants.next()
        return frames


class Trial:
    """A client, the rogue it talks to, and what was wrong with the outcomes."""

    def __init__(self, rogue: Any, client: Client, seed: int) -> None:
        self.wrong: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.answers = 0
        self._rogue = rogue
        self._client = client
        self._mutants = AnswerMutants(seed)

    def run(self, answers: int) -> None:
        """Answer so many times."""
        number = 0
        while self.answers < answers:
            count = min(ANSWERS_A_JOB, answers - self.answers)
            self.answers += count
            self._rogue.script = lambda uuid, count=count: [
                *(self._mutants.next(uuid.encode()) for _ in range(count)),
                answer(uuid, "200", result("good")),
                answer(uuid, "200", [{"name": DEFAULT_WORKER}], command=b"0x11"),
            ]
            number += 1
            self._timed(self._command if number % 4 == 0 else self._job)
            if number % JOBS_A_CHECK == 0:
                self._check()

    def _timed(self, act: Any) -> None:
        started = time.monotonic()
        act()
        if time.monotonic() - started > JOB_SECONDS + MORE_SECONDS:
            self.wrong.append(f"a job of {JOB_SECONDS:g} s took {time.monotonic() - started:.1f} s")

    def _job(self) -> None:
        try:
            results = self._client.run_job("fastmcp", "x", timeout=JOB_SECONDS)
        except NfcliError as error:
            self.outcomes[type(error).__name__] += 1
            return
        except Exception as error:  # noqa: BLE001  what is looked for
            self.wrong.append(f"a job raises {error!r}"[:300])
            return
        result = results.get(DEFAULT_WORKER)
        if set(results) != {DEFAULT_WORKER} or not isinstance(result, dict) or not _TYPES.keys() <= result.keys():
            self.wrong.append(f"a job returns {results}"[:300])
            return
        lines = [*result["errors"], *result["messages"]]
        if not isinstance(result["failed"], bool) or not all(isinstance(line, str) for line in lines):
            self.wrong.append(f"a result is {result}"[:300])
        self.outcomes["failed" if result["failed"] else "done"] += 1

    def _command(self) -> None:
        out, err = io.StringIO(), io.StringIO()
        session = Session(self._client, console=Console(out, err))
        line = self._mutants.chance.choice(_LINES)
        status = session.run_line(line + (" timeout 5" if "norfab" not in line else ""))
        self.outcomes[f"command {status}"] += 1
        if "most recent call" in err.getvalue() or "internal error" in err.getvalue() or status not in {0, 1, 3}:
            self.wrong.append(f"{line}: status {status}, {err.getvalue()[:300]}")

    def _check(self) -> None:
        self._rogue.script = lambda uuid: [answer(uuid, "200", result("good"))]
        results = self._client.run_job("fastmcp", "x", timeout=10 * JOB_SECONDS)
        if results[DEFAULT_WORKER]["result"] != "good":
            self.wrong.append(f"the next good answer is taken for {results}"[:300])


def main() -> int:
    """Attack, print the report as JSON, return the exit status."""
    parser = argparse.ArgumentParser(description="Attack a client with a rogue worker's answers.")
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="nf") as folder,
        rogue_and_client(Path(folder)) as (rogue, client),
    ):
        trial = Trial(rogue, client, arguments.seed)
        trial.run(min(arguments.answers, 1_000))
        threads, before = threading.active_count(), _peak_megabytes()
        trial.run(arguments.answers)
        if threading.active_count() > threads:
            trial.wrong.append(f"{threading.active_count()} threads run, before it was {threads}")
        if _peak_megabytes() > before + MAX_MORE_MEGABYTES:
            trial.wrong.append(f"memory grew from {before:.0f} to {_peak_megabytes():.0f} MB")
    report = {
        "seconds": round(time.perf_counter() - started, 1),
        "answers": trial.answers,
        "outcomes": dict(sorted(trial.outcomes.items())),
        "peak MB": [round(before), round(_peak_megabytes())],
        "wrong": trial.wrong,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if trial.wrong else 0


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
