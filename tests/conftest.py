"""What all tests share: a home of their own, environments with workers on free ports, the installed programs.

Tests run against the installed package. Two things guard that, because the repository's root is itself the package
folder: pytest must not import the root's `__init__.py` as a test package, and what is installed must be this tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nfcli as package
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.tokens import BearerTokenRecord
from support.leaks import TokenWatch
from support.workers import (
    EnvironmentFactory,
    NfcliRunner,
    RunningWorker,
    WorkerRunner,
    run_worker,
    without_stop_notice,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = ("man", "models", "shell", "worker")
EXTRA_PROCESSES = 3


class _RootIsNoTestPackage:
    """Collect the repository's root as a plain folder.

    pytest takes a folder with an `__init__.py` for a package of tests and imports that file, here under a wrong name,
    so that the tests would meet two copies of nfcli.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    """Register what can't be a hook of this file: its hooks are asked about folders below it only."""
    config.pluginmanager.register(_RootIsNoTestPackage())
    # Whatever PYTHONDONTWRITEBYTECODE says: without a cache every process of a run rewrites the asserts of every module
    # again, 13 s each.
    sys.dont_write_bytecode = False
    # A shell starts what runs in its background with Ctrl-C ignored, and so would every program that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int | None:
    """Run more processes than there are cores with `-n auto`: many tests wait for other programs and for the disk."""
    chosen = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return None if chosen else len(os.sched_getaffinity(0)) + EXTRA_PROCESSES


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Begin with a share of the modules: all processes of a run import all modules, and the first one caches each.

    In the same order they would all compile each module at the same time.
    """
    run = getattr(session.config, "workerinput", None)
    if run is None:
        return
    places = [session.config.invocation_params.dir / argument.split("::")[0] for argument in session.config.args]
    files = sorted({file for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))})
    for file in files[int(run["workerid"].removeprefix("gw")) :: run["workercount"]]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # collection reports it
            pytest.Module.from_parent(session, path=file).obj  # noqa: B018


def pytest_sessionstart() -> None:
    """Refuse to test an installed package that differs from the tree whose tests these are."""
    different = _differences(_installed_folder())
    if different:
        raise pytest.UsageError(
            f"the installed nfcli is not this tree, {different[0]} differs: "
            f"remove the folder build and run {shlex.quote(sys.executable)} -m pip install '.[test]' again"
        )


def pytest_report_header() -> str:
    """Name the package that is tested."""
    return f"nfcli: {_installed_folder()}"


def _installed_folder() -> Path:
    return Path(str(package.__file__)).resolve().parent


def _differences(installed: Path) -> list[str]:
    """Return the files of the package that aren't the same in both places."""
    if installed == ROOT:
        return []
    here, there = _package_files(ROOT), _package_files(installed)
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _package_files(folder: Path) -> dict[str, bytes]:
    found = [folder / "__init__.py", folder / "py.typed"]
    for name in PACKAGE_FOLDERS:
        found += [path for path in (folder / name).rglob("*") if path.suffix in {".py", ".md"}]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.exists()}


@pytest.fixture(scope="session")
def token_watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Watch over the tokens of the session (`leaks.py`): in the end none may be found outside a database."""
    watch = TokenWatch()
    make_record, run_job = BearerTokenRecord.__init__, package.Client.run_job

    def watched(record: BearerTokenRecord, token: str, username: str, *others: Any, **named: Any) -> None:
        watch.note(token)
        watch.note_username(str(username))
        make_record(record, token, username, *others, **named)

    def watched_job(client: package.Client, *args: Any, **named: Any) -> Any:
        given = named.get("kwargs") or {}
        for key, note in (("token", watch.note), ("username", watch.note_username)):
            if isinstance(given.get(key), str):
                note(given[key])
        return run_job(client, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BearerTokenRecord, "__init__", watched)
        patch.setattr(package.Client, "run_job", watched_job)
        yield watch
    found = list(watch.search(tmp_path_factory.getbasetemp()))
    if found:
        pytest.fail("tokens lie where they don't belong:\n" + "\n".join(found), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_session(tmp_path_factory: pytest.TempPathFactory, token_watch: Any) -> Iterator[None]:  # noqa: ARG001
    """Keep fixtures of wider scope than a test away from the user's files, and from proxies."""
    # Sockets live here when tmp_path is too long for one, so its own path has to be short.
    runtime_folder = tempfile.mkdtemp(prefix="nf-")
    with pytest.MonkeyPatch.context() as patch:
        _move_home(patch, tmp_path_factory.mktemp("home"))
        patch.setenv("XDG_RUNTIME_DIR", runtime_folder)
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        yield
    shutil.rmtree(runtime_folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an empty home, and with it an empty default environment (`nfcli` in `.local/state`)."""
    folder = tmp_path_factory.mktemp("home")
    _move_home(monkeypatch, folder)
    return folder


def _move_home(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("HOME", str(folder))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NORFAB_INVENTORY_DIR"):
        patch.delenv(name, raising=False)
    patch.setenv("XDG_STATE_HOME", str(folder / ".local" / "state"))


@pytest.fixture(scope="session")
def environment_factory(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentFactory:
    """Make environments; also for fixtures of wider scope than a test."""

    def make(*names: str, **settings: Any) -> Environment:
        workers = names or (DEFAULT_WORKER,)
        configured = {"service": "fastmcp", "port": 0, "authentication_enabled": True, **settings}
        inventory = {"workers": {name: [configured] for name in workers}, "topology": {"workers": list(workers)}}
        folder = tmp_path_factory.mktemp("environment")
        file = folder / "inventory.yaml"
        file.write_text(json.dumps(inventory), encoding="utf-8")  # JSON is YAML
        return Environment(folder, file)

    return make


@pytest.fixture(scope="session")
def running_worker(token_watch: Any) -> WorkerRunner:
    """Run workers as processes: awaited, terminated, and killed where that isn't enough."""

    @contextlib.contextmanager
    def run(environment: Environment, name: str = DEFAULT_WORKER) -> Iterator[RunningWorker]:
        with run_worker(environment, name) as worker:
            token_watch.note_process(worker.process.pid)
            yield worker

    return run


@pytest.fixture(scope="session")
def nfcli(tmp_path_factory: pytest.TempPathFactory, token_watch: Any) -> NfcliRunner:
    """Run the installed program and give back its output and exit status; no given token may stand on its stderr."""
    program = Path(sys.executable).with_name("nfcli")
    folder = tmp_path_factory.mktemp("anywhere")

    def run(
        *words: str,
        stdin: str = "",
        environment: Environment | None = None,
        timeout: float = 60.0,
        has_stop_notice: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        where = ["-i", str(environment.inventory_file)] if environment else []
        command = [str(program), *where, *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, start_new_session=True
        ) as process:
            try:
                output, errors = process.communicate(stdin.encode(), timeout)
            except BaseException:
                # The entire group: workers that the program started hold its pipes open.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        given = token_watch.note_given(f"{' '.join(words)}\n{stdin}")
        assert [token for token in given if token in errors.decode()] == []
        said = errors.decode() if has_stop_notice else without_stop_notice(errors.decode())
        return subprocess.CompletedProcess(command, process.returncode, output.decode(), said)

    return run
