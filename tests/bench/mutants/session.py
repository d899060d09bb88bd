"""One run of pytest in a process of its own: which tests, in which order, and what became of them."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import coverage
import pytest

MEMORY_BYTES = 6 << 30
"""A mutant that allocates without end fails, and no other process with it."""


TEST_SECONDS = 15
SLOWER = 6
"""A test may take so much in addition to so many times what it took without a change."""


@dataclass
class Outcome:
    """What a run found out: the exit status of pytest, what failed, and what each test took and reached."""

    status: int
    failed: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Read what `run` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        reached = {
            file: {int(line): tests for line, tests in lines.items()} for file, lines in values["reached"].items()
        }
        return cls(**{**values, "reached": reached})


class _Tests:
    """Choose and order the tests of a run, and note how they end. Without `wanted`, all of them, with coverage."""

    def __init__(self, wanted: dict[str, float] | None, measured: coverage.Coverage | None) -> None:
        self.failed: list[str] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self._wanted = wanted
        self._measured = measured

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begin with the files that are done soonest."""
        wanted = self._wanted
        if wanted is None:
            return
        chosen = [item for item in items if item.nodeid in wanted]
        of_file: dict[Path, float] = defaultdict(float)
        for item in chosen:
            of_file[item.path] += wanted[item.nodeid]
        items[:] = sorted(chosen, key=lambda item: (of_file[item.path], item.path, wanted[item.nodeid]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Count the lines that a test reaches as its own."""
        if self._measured is not None:
            self._measured.switch_context(item.nodeid)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """End this process if a test takes much longer than it did; pytest's own plugin cancels that after the test."""
        if self._wanted is not None:
            seconds = TEST_SECONDS + SLOWER * self._wanted[item.nodeid]
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long each phase of a test takes, and what fails."""
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note files that can't be imported."""
        if report.failed:
            self.failed.append(report.nodeid)


def run(root: Path, arguments: list[str], wanted: dict[str, float] | None, result: Path) -> None:
    """Run tests of the copy at `root` in this process, which is used for nothing else, and write an `Outcome`."""
    os.setsid()
    with (result.parent / "output").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    _limit_memory()
    os.chdir(root)
    sys.path.insert(0, str(root.parent))
    sys.dont_write_bytecode = True
    measured = None
    if wanted is None:
        measured = coverage.Coverage(
            data_file=None, config_file=False, source=[str(root / each) for each in ("models", "worker")]
        )
        measured.start()
    tests = _Tests(wanted, measured)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--assert=plain",
        "--tb=short",
        f"--basetemp={result.parent / 't'}",
    ]
    status = pytest.main([*options, *arguments], plugins=[tests])
    outcome = Outcome(int(status), tests.failed, dict(tests.seconds))
    if measured is not None:
        measured.stop()
        outcome.reached = _reached(measured, root)
        outcome.modules = _foreign_modules()
    result.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


def _limit_memory() -> None:
    import resource  # noqa: PLC0415 - not on every system

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reached(measured: coverage.Coverage, root: Path) -> dict[str, dict[int, list[str]]]:
    data = measured.get_data()
    return {
        Path(file).relative_to(root).as_posix(): {
            line: [each for each in contexts if each] for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }


def _foreign_modules() -> list[str]:
    """Return the modules that were loaded from installed packages, in the order of their import."""
    packages = str(Path(pytest.__file__).parents[1])
    files = ((name, getattr(module, "__file__", None) or "") for name, module in sys.modules.items())
    return [name for name, file in files if file.startswith(packages) and not name.startswith(("nfcli", "_pytest"))]
