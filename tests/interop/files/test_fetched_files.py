"""Files of NorFab's file service on this machine: `Client.fetch_file`."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import Environment
from nfcli.models.errors import EnvironmentFolderError
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import NfcliRunner

PART = 1_000
SIZES = {"empty": 0, "small": 10, "part": PART, "two": 2 * PART, "many": 50 * PART + 7}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder that two workers of the file service share."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "sub").mkdir()
    for name, size in SIZES.items():
        (folder / "sub" / name).write_bytes(hashlib.shake_128(name.encode()).digest(size))
    (folder / "text.txt").write_text("première ligne\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def environment(new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, shared: Path) -> Iterator[Environment]:
    """Join a fabric with two workers of the file service."""
    settings = {"service": "filesharing", "base_dir": str(shared)}
    with new_fabric({"files-1": settings, "files-2": settings}) as fabric:
        fabric.start("files-1", "files-2")
        yield joined_environment(fabric)


@pytest.fixture(scope="module")
def client(environment: Environment) -> Iterator[Client]:
    """Connect a client to that fabric."""
    norfab = NorFab(inventory=environment.inventory_file)
    yield norfab.make_client()
    norfab.destroy()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("pipeline", [1, 10])
def test_files_arrive_as_they_are(client: Client, shared: Path, tmp_path: Path, name: str, pipeline: int) -> None:
    """Of any number of parts; private, and with nothing beside them."""
    url, path = f"nf://sub/{name}", tmp_path / "copy"
    assert client.fetch_file(url, PART, pipeline, destination=path) == {
        "status": "200",
        "content": str(path),
        "error": None,
    }
    assert path.read_bytes() == (shared / "sub" / name).read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_large_file_arrives_in_parts_of_the_usual_size(client: Client, shared: Path, tmp_path: Path) -> None:
    """Some megabytes."""
    data = hashlib.shake_128(b"large").digest(5_000_001)
    (shared / "large").write_bytes(data)
    assert client.fetch_file("nf://large", destination=tmp_path)["status"] == "200"
    assert (tmp_path / "large").read_bytes() == data


def test_without_a_destination_files_are_kept_in_the_state(client: Client, shared: Path) -> None:
    """And fetched again only when they have changed."""
    (shared / "config").write_text("one", encoding="utf-8")
    path = client.environment.downloads_folder / "config"
    assert client.fetch_file("nf://config", read=True)["content"] == "one"
    number = path.stat().st_ino
    assert client.fetch_file("nf://config")["content"] == str(path)
    assert path.stat().st_ino == number
    (shared / "config").write_text("two", encoding="utf-8")
    assert client.fetch_file("nf://config", read=True)["content"] == "two"
    client.environment.prepare()  # what is kept has the modes that are verified


def test_a_list_gives_a_result_for_each_file(client: Client, tmp_path: Path) -> None:
    """Whatever became of the others."""
    urls = ["nf://text.txt", "nf://nowhere", "nf://../text.txt", "nf://sub/empty", "nf://sub"]
    results = client.fetch_file(urls, destination=tmp_path)
    assert [result["status"] for result in results] == ["200", "404", "500", "200", "404"]
    assert results[1]["content"] is None
    assert results[1]["error"] == "'nf://nowhere' file not found"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.txt"]


def test_text_is_read_and_other_content_refused(client: Client) -> None:
    """It may be in the file that has been fetched nevertheless."""
    assert client.fetch_file("nf://text.txt", read=True)["content"] == "première ligne\n"
    failed = client.fetch_file("nf://sub/many", read=True)
    assert (failed["status"], failed["content"]) == ("400", None)
    assert "isn't text in UTF-8" in failed["error"]


def test_another_file_is_replaced_when_that_is_said(client: Client, tmp_path: Path) -> None:
    """One with the same content may stay."""
    path = tmp_path / "text.txt"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(EnvironmentFolderError, match=r"text\.txt exists with another content: .* overwrite"):
        client.fetch_file("nf://text.txt", destination=tmp_path)
    assert path.read_text(encoding="utf-8") == "mine"
    assert client.fetch_file("nf://text.txt", destination=path, overwrite=True)["status"] == "200"
    assert client.fetch_file("nf://text.txt", destination=path)["status"] == "200"
    assert [*tmp_path.iterdir()] == [path]


def test_the_commands_list_and_copy(environment: Environment, nfcli: NfcliRunner, shared: Path, tmp_path: Path) -> None:
    """The files in a folder, what one is, and the file itself, as path or text."""

    def run(*words: str, status: int = 0) -> str:
        done = nfcli("-c", *words, environment=environment)
        assert (done.returncode, done.stderr if status == 0 else "") == (status, "")
        return done.stdout if status == 0 else done.stderr

    rows = json.loads(run("show", "filesharing", "files", "url", "nf://sub", "|", "json"))
    assert rows == [{"name": name, "workers": "files-1, files-2"} for name in sorted(SIZES)]
    details = json.loads(run("show", "filesharing", "details", "url", "nf://sub/small", "|", "json"))
    digest = hashlib.md5((shared / "sub" / "small").read_bytes(), usedforsecurity=False).hexdigest()
    assert [(row["worker"], row["size_bytes"], row["md5hash"]) for row in details] == [
        ("files-1", 10, digest),
        ("files-2", 10, digest),
    ]
    assert run("show", "filesharing", "remotes").split() == [
        *("worker", "name", "mount", "type", "branch", "auto_sync", "sync_interval", "status"),
    ]
    assert run("filesharing", "copy", "url", "nf://text.txt", "read") == "première ligne\n"
    path = tmp_path / "copy"
    assert run("filesharing", "copy", "url", "nf://sub/two", "destination", str(path)) == f"{path}\n"
    assert path.read_bytes() == (shared / "sub" / "two").read_bytes()
    path.write_bytes(b"mine")
    words = ("filesharing", "copy", "url", "nf://sub/two", "destination", str(path))
    assert "exists with another content" in run(*words, status=1)
    assert path.read_bytes() == b"mine"
    assert run(*words, "overwrite") == f"{path}\n"
    assert run("filesharing", "copy", "url", "nf://nowhere", status=1) == "'nf://nowhere' file not found\n"
