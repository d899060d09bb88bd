"""A copy of the repository in which sources are changed, and runs of its tests in processes that begin warm."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mutants.mutants import Mutant
from mutants.rooms import Room
from mutants.session import Outcome, run

FIRST_RUN_SECONDS = 1800
ROOM_SECONDS = 30
"""What a run may take in addition to several times what its tests took without a change."""

SLOWER = 8


class Laboratory:
    """The copy of one room's sources and tests, and what its tests reach."""

    def __init__(self, root: Path, folder: Path, room: Room, markers: list[str]) -> None:
        self._markers = markers
        self._folder = folder
        self.copy = folder / "nfcli"
        self._stamp = 1_000_000_000
        _copy_repository(root, self.copy)
        os.environ.update(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1", CI="true")
        first = self._run([*markers, *room.tests], None, FIRST_RUN_SECONDS, "spawn")
        if first is None or not first.seconds:
            raise SystemExit(f"the room's tests don't run, or longer than {FIRST_RUN_SECONDS} s:\n{self.output}")
        self.first = first
        multiprocessing.set_forkserver_preload(["__main__", *first.modules])

    @property
    def output(self) -> str:
        """What the last run printed."""
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")

    def try_mutant(self, mutant: Mutant) -> tuple[str, str]:
        """Return what became of a mutant (killed, slow, broken or survived), and the test that noticed it."""
        wanted = self._choose_tests(mutant)
        file = self.copy / mutant.file
        original, times = file.read_bytes(), file.stat()
        self._stamp += 1
        try:
            file.write_text(mutant.source, encoding="utf-8")
            os.utime(file, (self._stamp, self._stamp))  # no two sources share compiled code
            files = sorted({test.partition("::")[0] for test in wanted})
            seconds = ROOM_SECONDS + SLOWER * sum(wanted.values())
            outcome = self._run([*self._markers, "-x", *files], wanted, seconds)
        finally:
            file.write_bytes(original)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        if outcome is None:
            return "slow", "a test did not end"
        if outcome.status == 0:
            return "survived", f"{len(wanted)} tests"
        return ("killed", outcome.failed[0]) if outcome.failed else ("broken", f"pytest ends with {outcome.status}")

    def _choose_tests(self, mutant: Mutant) -> dict[str, float]:
        """Return the tests that reach the changed line; of a line that runs at import, all in files that reach it."""
        lines = self.first.reached.get(mutant.file, {})
        chosen = set(lines.get(mutant.line, ()))
        if not chosen:
            files = {test.partition("::")[0] for tests in lines.values() for test in tests}
            chosen = {test for test in self.first.seconds if not files or test.partition("::")[0] in files}
        return {test: self.first.seconds[test] for test in chosen - set(self.first.failed)}

    def _run(
        self, arguments: list[str], wanted: dict[str, float] | None, seconds: float, method: str = "forkserver"
    ) -> Outcome | None:
        """Run tests in a new process; None when it takes longer than that."""
        result = self._folder / "outcome.json"
        result.unlink(missing_ok=True)
        context = multiprocessing.get_context(method)
        process = context.Process(target=run, args=(self.copy, arguments, wanted, result))
        process.start()
        process.join(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # with all that its tests have started
        process.join()
        if not result.exists():
            return (
                None if process.exitcode in {1, -signal.SIGKILL} else Outcome(-1, [f"exit status {process.exitcode}"])
            )
        return Outcome.read(result)


def _copy_repository(root: Path, copy: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(copy)], check=True)
