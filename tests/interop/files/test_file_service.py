"""NorFab's file service, which publishes its base folder: nothing of ours is in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.shell.cli import main
from support.norfab.sites import FabricMaker
from support.workers import NfcliRunner, WorkerRunner

FILES, OURS = "filesharing-worker-1", "fastmcp-worker-1"
SETTINGS = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}


@pytest.fixture(scope="module")
def fabric(new_fabric: FabricMaker) -> Iterator[Any]:
    """Run a broker and the file service, whose base folder holds the inventory of a worker of ours."""
    with new_fabric({OURS: SETTINGS}) as fabric:
        fabric.start(FILES)
        yield fabric


@pytest.fixture
def environment(fabric: Any) -> Iterator[Environment]:
    """Make the environment in that folder."""
    yield Environment(fabric.folder, fabric.folder / "inventory.yaml")
    shutil.rmtree(fabric.folder / ".nfcli", ignore_errors=True)


def published(fabric: Any, url: str = "nf://") -> list[str]:
    """Ask the file service for the URLs of all files below a folder."""
    done = fabric.client.call("run_job", service="filesharing", task="walk", kwargs={"url": url})
    found: list[str] = done["result"][FILES]["result"] or []
    return found


def is_published(fabric: Any, path: str) -> bool:
    """Whether the file service would send a file."""
    kwargs = {"url": f"nf://{path}"}
    done = fabric.client.call("run_job", service="filesharing", task="file_details", kwargs=kwargs)
    return bool(done["result"][FILES]["result"]["exists"])


def test_a_new_environment_in_the_base_folder_keeps_its_state_elsewhere(
    fabric: Any, environment: Environment, nfcli: NfcliRunner, running_worker: WorkerRunner
) -> None:
    """Keys, tokens and logs of a worker that serves are no files of the service."""
    with running_worker(environment, OURS):
        done = nfcli("-c", "fastmcp", "auth", "create-token", "username", "ann", environment=environment)
        assert json.loads(done.stdout) == {OURS: True}
        assert (environment.tokens_folder(OURS) / "cache.db").is_file()
        assert (environment.keys_folder / "client.key_secret").is_file()
        assert is_published(fabric, "inventory.yaml")
        assert not environment.state_folder.is_relative_to(fabric.folder)
        assert not (fabric.folder / ".nfcli").exists()
        assert [url for url in published(fabric) if "key_secret" in url and "__norfab__" not in url] == []
        assert main(["-i", str(environment.inventory_file), "--check"]) == 0


def test_state_that_the_service_gives_away_is_not_used(
    fabric: Any, environment: Environment, nfcli: NfcliRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line has the command that moves it, after which everything works."""
    outside = environment.state_folder
    assert nfcli("fastmcp", "auth", "create-token", "username", "ann", environment=environment).returncode == 0
    outside.rename(fabric.folder / ".nfcli")
    assert is_published(fabric, ".nfcli/keys/client.key_secret")
    assert is_published(fabric, f".nfcli/tokens/{OURS}/cache.db")
    line = (
        f"{fabric.folder}/.nfcli is in NorFab's base folder {fabric.folder}, whose file service gives it to every "
        f"client of the broker: stop the workers, run mkdir -pm 700 {outside.parent} && mv {fabric.folder}/.nfcli "
        f"{outside}, then replace keys and tokens (man page fabric)"
    )
    for words in (["fastmcp", "auth", "list-tokens"], ["-w"]):
        done = nfcli(*words, environment=environment)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"nfcli: {line}\n")
    assert main(["-i", str(environment.inventory_file), "--check"]) == 1
    assert f"FAULT environment: {line}" in capsys.readouterr().out.splitlines()
    assert os.system(line.partition("run ")[2].partition(", then")[0]) == 0  # noqa: S605  what the line says
    assert not is_published(fabric, ".nfcli/keys/client.key_secret")
    done = nfcli("fastmcp", "auth", "list-tokens", environment=environment)
    assert (done.returncode, "ann" in done.stdout) == (0, True)


def test_a_folder_below_the_base_folder_is_published_too(fabric: Any) -> None:
    """Its state is elsewhere, in another place than that of the base folder."""
    folder = fabric.folder / "below"
    folder.mkdir()
    environment = Environment(folder, None)
    environment.prepare()
    assert [*folder.iterdir()] == []
    assert environment.state_folder != Environment(fabric.folder, None).state_folder
    assert published(fabric, "nf://below") == []


def test_nothing_starts_where_no_other_place_is_known(
    fabric: Any, environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for an account whose home is NorFab's base folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(Path(fabric.folder) / ".local" / "state"))
    assert main(["-i", str(environment.inventory_file), "fastmcp", "auth", "list-tokens"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ": set XDG_STATE_HOME to a folder elsewhere, or remove " in line
    assert not (fabric.folder / ".local").exists()
