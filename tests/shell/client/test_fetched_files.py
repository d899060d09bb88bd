"""`Client.fetch_file` where something goes wrong: nothing is left of the file, and the reason is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.errors import EnvironmentFolderError, JobInterruptedError, NoWorkersError, UsageError
from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.models.shared_files import fetching
from nfcli.shell.client.client import Client
from support.fabric.fake_broker import FakeBroker, Site
from support.fabric.file_worker import FILES, FileWorkers

CONTENT = bytes(range(256)) * 40
PART = 1_000
STALL_SECONDS = 3
URL = "nf://a/file"


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """Run a broker with two workers of the file service."""
    broker = FakeBroker({"f1": FILES, "f2": FILES, "w1": "fastmcp"})
    yield broker
    broker.stop()


@pytest.fixture
def workers(broker: FakeBroker) -> FileWorkers:
    """Have these workers share a file of eleven parts."""
    return FileWorkers(broker, CONTENT)


@pytest.fixture
def client(tmp_path: Path, broker: FakeBroker) -> Iterator[Client]:
    """Connect to that broker."""
    with Site(tmp_path, broker).client() as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the folder that files are fetched to."""
    folder = tmp_path / "to"
    folder.mkdir()
    return folder


def failure(client: Client, folder: Path, **options: Any) -> str:
    """Fetch the file, which fails; return why, once nothing is left of it."""
    result = client.fetch_file(URL, PART, destination=folder, **options)
    assert (result["status"], result["content"]) == ("400", None)
    assert [*folder.iterdir()] == []
    error: str = result["error"]
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.slow
def test_parts_are_requested_a_few_ahead(client: Client, workers: FileWorkers, folder: Path) -> None:
    """Each once, in order; no more than `pipeline` are under way."""
    assert client.fetch_file(URL, PART, 3, destination=folder)["status"] == "200"
    assert (folder / "file").read_bytes() == CONTENT
    assert workers.requested == list(range(PART, len(CONTENT), PART))
    workers.requested.clear()
    workers.stalls_at = 2 * PART
    (folder / "file").unlink()
    failure(client, folder, pipeline=3, timeout=STALL_SECONDS)
    assert workers.requested == [PART, 2 * PART, 3 * PART, 4 * PART]


def test_a_wrong_checksum_is_found(client: Client, workers: FileWorkers, folder: Path) -> None:
    """Both workers are tried."""
    workers.details["md5hash"] = "0" * 32
    assert failure(client, folder).endswith("its checksum is not the one that was announced: fetch it again")
    assert workers.fetched_from == ["f1", "f2"]


def test_an_altered_part_is_found(client: Client, workers: FileWorkers, folder: Path) -> None:
    """Of the same length."""
    workers.alter = lambda part: part.replace(b"\x07", b"\x08")
    assert "checksum" in failure(client, folder)


@pytest.mark.parametrize("change", [-1, 1, 100_000])
def test_a_part_of_another_length_ends_it(client: Client, workers: FileWorkers, folder: Path, change: int) -> None:
    """Whatever a worker sends, no more is kept than was announced."""
    workers.alter = lambda part: part[:change] if change < 0 else part + bytes(change)
    wanted = f"nf://a/file from f2: byte 0 of {len(CONTENT)}: {PART + change} bytes came and not {PART}"
    assert failure(client, folder).startswith(wanted)


@pytest.mark.slow
def test_a_stalled_stream_ends_with_the_timeout(client: Client, workers: FileWorkers, folder: Path) -> None:
    """No other worker is tried after it."""
    workers.stalls_at = 5 * PART
    assert "no answer within" in failure(client, folder, timeout=STALL_SECONDS)
    assert workers.fetched_from == ["f1"]


def test_the_next_worker_is_tried(client: Client, workers: FileWorkers, folder: Path) -> None:
    """From the beginning of the file."""
    workers.failed = {"f1"}
    assert client.fetch_file(URL, PART, destination=folder)["status"] == "200"
    assert workers.fetched_from == ["f1", "f2"]
    assert (folder / "file").read_bytes() == CONTENT


def test_a_worker_that_dies_is_replaced(tmp_path: Path, broker: FakeBroker, workers: FileWorkers, folder: Path) -> None:
    """The broker no longer knows the first one; without another one that is the reason."""
    with Site(tmp_path, broker).client(timeouts=Timeouts(poll=0.05, silence=0.1)) as client:
        workers.dead = {"f1"}
        assert client.fetch_file(URL, PART, destination=folder)["status"] == "200"
        assert workers.fetched_from == ["f1", "f2"]
        assert (folder / "file").read_bytes() == CONTENT
        (folder / "file").unlink()
        workers.dead = {"f1", "f2"}
        assert "f2 has gone away while the job ran" in failure(client, folder)


def test_a_worker_that_fails_says_why(client: Client, workers: FileWorkers, folder: Path) -> None:
    """The reason is the last one's."""
    workers.failed = {"f1", "f2"}
    assert failure(client, folder) == "nf://a/file from f2: the disk is broken"


def test_a_result_before_the_last_part_is_no_file(client: Client, workers: FileWorkers, folder: Path) -> None:
    """As when a message is lost."""
    workers.content = CONTENT[:PART]
    workers.alter = lambda _: b""
    assert failure(client, folder).endswith(f"only 0 of {len(CONTENT)} bytes have come: fetch it again")


@pytest.mark.parametrize(
    "details",
    [
        None,
        [],
        {},
        {"size_bytes": -1, "md5hash": "0" * 32},
        {"size_bytes": True, "md5hash": "0" * 32},
        {"size_bytes": 1, "md5hash": "x"},
    ],
)
def test_details_of_another_shape_are_refused(client: Client, workers: FileWorkers, folder: Path, details: Any) -> None:
    """Nothing is requested of such a worker."""
    workers.details = details
    assert "no valid size and checksum" in failure(client, folder)
    assert workers.fetched_from == []


def test_a_full_disk_ends_it(
    client: Client, workers: FileWorkers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the error of a file of this machine."""
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  `fetch` closes it
    monkeypatch.setattr(fetching, "open_private", lambda *_: full)
    with pytest.raises(EnvironmentFolderError, match=r"can't be written: No space left on device"):
        client.fetch_file(URL, PART, destination=folder)
    assert full.closed
    assert workers.fetched_from == ["f1"]


def test_an_interrupt_leaves_nothing(client: Client, workers: FileWorkers, folder: Path) -> None:
    """Ctrl-C while it is written."""

    def interrupt(_: bytes) -> bytes:
        os.kill(os.getpid(), 2)
        return b""

    workers.alter = interrupt
    with pytest.raises(JobInterruptedError):
        client.fetch_file(URL, PART, destination=folder)
    assert [*folder.iterdir()] == []


def test_a_file_that_appears_meanwhile_is_kept(client: Client, workers: FileWorkers, folder: Path) -> None:
    """It was not there when it was looked for."""

    def create(part: bytes) -> bytes:
        (folder / "file").write_bytes(b"mine")
        return part

    workers.alter = create
    with pytest.raises(EnvironmentFolderError, match="exists with another content"):
        client.fetch_file(URL, PART, destination=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": b"mine"}


@pytest.mark.parametrize(
    "url",
    [
        *("nf://../x", "nf://a/../../x", "nf:///etc/passwd", "nf://a//b", "nf://a/./b", "nf://a\\..\\b", "nf://C:/x"),
        *("nf://a/", "nf://", "http://x", "nf://a\n", "nf://a\0b", "nf://" + "a" * 5_000),
    ],
)
def test_other_addresses_are_refused(client: Client, workers: FileWorkers, folder: Path, url: str) -> None:
    """Before anything is sent."""
    result = client.fetch_file(url, destination=folder)
    assert result["status"] == "500"
    assert result["error"].isprintable()
    assert result["error"].endswith("give nf:// and the path of a shared file")
    assert workers.fetched_from == []
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"chunk_size": True}, {"pipeline": 101}, {"timeout": 0}])
def test_options_out_of_bounds_are_refused(client: Client, options: Any) -> None:
    """With the name of the option."""
    with pytest.raises(UsageError, match=next(iter(options))):
        client.fetch_file(URL, **options)


def test_without_a_file_service_that_is_said(client: Client, broker: FakeBroker, folder: Path) -> None:
    """In one line."""
    broker.workers = {"w1": "fastmcp"}
    with pytest.raises(NoWorkersError, match="no worker serves 'filesharing': the broker has fastmcp"):
        client.fetch_file(URL, destination=folder)


def test_a_destination_without_a_folder_is_refused(client: Client, workers: FileWorkers, tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(EnvironmentFolderError, match="new is not a folder: create it"):
        client.fetch_file(URL, destination=tmp_path / "new" / "file")
    with pytest.raises(EnvironmentFolderError, match="new is not a folder: name an existing one for several files"):
        client.fetch_file([URL, URL], destination=tmp_path / "new")
    assert workers.fetched_from == []
