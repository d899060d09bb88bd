"""The file of the workers that were seen: what it holds, who may change it at the same time, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nfcli.models.environment.file_lock import FileLock
from nfcli.models.environment.known_workers import MAX_NAME_CHARACTERS, MAX_WORKERS, RENEW_AFTER, KnownWorkers
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import EnvironmentFolderError

NOW = datetime(2026, 5, 31, 12, 8, 51, tzinfo=UTC)
Modes = Callable[[Path], dict[str, str]]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment with its folders."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    return environment


def test_workers_are_known_to_whoever_reads_the_file_later(environment: Environment) -> None:
    """With the time when each was last seen; an environment without the file knows none."""
    workers = KnownWorkers(environment)
    assert workers.read() == {}
    assert workers.add(["w2", "w1"], NOW) == []
    assert workers.read() == KnownWorkers(environment).read() == {"w1": NOW, "w2": NOW}
    assert json.loads(environment.known_workers_file.read_text()) == {
        "version": 1,
        "workers": {"w1": "2026-05-31T12:08:51+00:00", "w2": "2026-05-31T12:08:51+00:00"},
    }


def test_a_file_that_can_not_be_read_is_named(environment: Environment) -> None:
    """By every method, in one line."""
    workers, file = KnownWorkers(environment), environment.known_workers_file
    workers.add(["w1"], NOW)
    environment.state_folder.rename(environment.folder / "moved")
    environment.state_folder.touch()
    for call in (workers.read, lambda: workers.add(["w2"], NOW), lambda: workers.forget("w1")):
        with pytest.raises(EnvironmentFolderError) as caught:
            call()
        assert str(caught.value) == f"{file} can't be read: Not a directory"


@pytest.mark.usefixtures("umask")
def test_the_file_is_private_whatever_the_umask(environment: Environment, modes: Modes) -> None:
    """As everything in `.nfcli/`."""
    KnownWorkers(environment).add(["w1"], NOW)
    found = modes(environment.state_folder)
    assert {name: mode for name, mode in found.items() if name.startswith("workers")} == {
        "workers.json": "0600",
        "workers.lock": "0600",
    }


def test_the_file_is_written_for_news_only(environment: Environment) -> None:
    """A new name, or one that wasn't seen for an hour."""
    workers, file = KnownWorkers(environment), environment.known_workers_file

    def is_written(names: list[str], now: datetime) -> bool:
        before = file.stat().st_ino if file.exists() else None
        workers.add(names, now)
        return file.exists() and file.stat().st_ino != before

    assert not is_written([], NOW)
    assert is_written(["w1"], NOW)
    assert not is_written(["w1"], NOW + RENEW_AFTER - timedelta(seconds=1))
    assert not is_written(["w1"], NOW - timedelta(days=1))
    assert is_written(["w1"], NOW + RENEW_AFTER)
    assert workers.read() == {"w1": NOW + RENEW_AFTER}
    assert is_written(["w1", "w2"], NOW + RENEW_AFTER)


def test_concurrent_shells_lose_nothing(environment: Environment) -> None:
    """Each has read the file before the others change it."""
    shells = [KnownWorkers(environment, lock_seconds=60) for _ in range(8)]
    for shell in shells:
        shell.read()
    with ThreadPoolExecutor(len(shells)) as pool:
        list(pool.map(lambda each: [shells[each].add([f"w{each}-{n}"], NOW) for n in range(5)], range(len(shells))))
    assert len(KnownWorkers(environment).read()) == 40
    assert {len(shell.read()) for shell in shells} == {40}


def test_what_another_process_forgot_is_not_known(environment: Environment) -> None:
    """The file decides, not what was read of it before."""
    first, second = KnownWorkers(environment), KnownWorkers(environment)
    first.add(["w1", "w2"], NOW)
    second.read()
    assert (first.forget("w1"), first.forget("w1"), first.forget("w3")) == (True, False, False)
    assert second.read() == {"w2": NOW}
    environment.known_workers_file.unlink()
    assert second.read() == {}


def test_there_is_a_limit(environment: Environment) -> None:
    """Those that are known stay, further ones are returned, and the file isn't written for them."""
    workers = KnownWorkers(environment)
    names = [f"w{number}" for number in range(MAX_WORKERS)]
    assert workers.add([*names, "more"], NOW) == ["more"]
    before = environment.known_workers_file.stat().st_ino
    assert workers.add(["w0", "another"], NOW) == ["another"]
    assert environment.known_workers_file.stat().st_ino == before
    assert {*workers.read()} == {*KnownWorkers(environment).read()} == {*names}


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "x" * (MAX_NAME_CHARACTERS + 1), "\ud800"])
def test_names_that_no_command_could_hold_are_not_stored(environment: Environment, name: str) -> None:
    """The others are."""
    workers = KnownWorkers(environment)
    assert workers.add([name, "w1"], NOW) == [name]
    assert KnownWorkers(environment).read() == {"w1": NOW}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", '{"version": 2, "workers": {}}', '{"version": 1}', '{"version": 1, "workers": {"w1": "x"}}'),
        *("[" * 100_000, "5", '{"version": 1, "workers": []}', '{"version": 1, "workers": {"w1": 5}}', "\ufeff{}"),
        *('{"version": 1, "workers": {"w1": "2026-05-31T12:08:51"}}', '{"version": 1, "workers": {}, "more": 1}'),
    ],
)
def test_a_file_of_another_content_is_refused_and_kept(environment: Environment, content: str) -> None:
    """The message has the remedy."""
    workers = KnownWorkers(environment)
    workers.add(["w1"], NOW)
    environment.known_workers_file.write_text(content)
    for change in (workers.read, lambda: workers.add(["w2"], NOW), lambda: workers.forget("w1")):
        with pytest.raises(EnvironmentFolderError, match=r"workers\.json is not a list of workers.*: move it away"):
            change()
    assert environment.known_workers_file.read_text() == content


def test_a_file_that_others_can_read_is_refused(environment: Environment) -> None:
    """They could have changed it."""
    KnownWorkers(environment).add(["w1"], NOW)
    environment.known_workers_file.chmod(0o644)
    with pytest.raises(EnvironmentFolderError, match="run chmod 600"):
        KnownWorkers(environment).read()


def test_a_lock_that_is_not_released_is_reported(environment: Environment) -> None:
    """A process that was stopped holds it; what is known can be read."""
    workers = KnownWorkers(environment, lock_seconds=0.05)
    workers.add(["w1"], NOW)
    with FileLock(environment.known_workers_file.with_suffix(".lock")) as held:
        held.acquire()
        with pytest.raises(EnvironmentFolderError, match=r"has been locked by another process for 0\.05 s"):
            workers.add(["w2"], NOW)
    assert workers.read() == KnownWorkers(environment).read() == {"w1": NOW}


def test_a_folder_that_cannot_be_written_is_reported(environment: Environment) -> None:
    """With the file's name; what was known stays known."""
    workers = KnownWorkers(environment)
    workers.add(["w1"], NOW)
    (environment.state_folder / "workers.lock").unlink()
    (environment.state_folder / "workers.lock").mkdir()
    with pytest.raises(EnvironmentFolderError, match="workers"):
        workers.add(["w2"], NOW)
    assert workers.read() == {"w1": NOW}
