"""`--create-env`: the environment that is created, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import EnvironmentFolderError
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.scaffold import create_environment
from nfcli.models.inventory.schema import Inventory, Topology, WorkerInventory
from nfcli.models.inventory.sections.bearer import AuthBearer
from nfcli.worker.http.allowed_hosts import host_patterns

Modes = Callable[[Path], dict[str, str]]


@pytest.mark.usefixtures("umask")
def test_created_environment_loads_with_authentication_on(tmp_path: Path, modes: Modes) -> None:
    """Its files are private, load unchanged, and define a worker on loopback that requires tokens."""
    environment = create_environment(tmp_path / "new folder")
    assert environment == Environment(tmp_path / "new folder", tmp_path / "new folder" / "inventory.yaml")
    assert modes(tmp_path) == {
        "new folder": "0700",
        "new folder/fastmcp": "0700",
        "new folder/fastmcp/fastmcp-worker-1.yaml": "0600",
        "new folder/inventory.yaml": "0600",
    }
    assert load_inventory(environment) == Inventory(
        workers={
            "fastmcp-worker-1": WorkerInventory(
                service="fastmcp", authentication_enabled=True, auth_bearer=AuthBearer(token_ttl=None)
            )
        },
        topology=Topology(workers=("fastmcp-worker-1",)),
    )


def test_names_of_the_certificate_are_allowed_in_urls(tmp_path: Path) -> None:
    """A client that uses one of them would get a certificate that fits, and 421."""
    names = ["mcp.example.com", "*.Example.org", "my_host", "192.0.2.7", "2001:db8::7", "mcp.example.com"]
    workers = load_inventory(create_environment(tmp_path / "named", names)).workers
    patterns = host_patterns(workers["fastmcp-worker-1"], "https://127.0.0.1:8001/mcp")
    hosts = ["mcp.example.com", "a.example.org", "my_host", "192.0.2.7", "[2001:db8::7]"]
    assert [host for host in hosts if not (patterns.allows(host) and patterns.allows(f"{host}:8001"))] == []
    assert not patterns.allows("b.example.com")
    unnamed = load_inventory(create_environment(tmp_path / "unnamed", [])).workers
    assert unnamed["fastmcp-worker-1"].allowed_hosts == ()


@pytest.mark.parametrize("existing", ["inventory.yaml", "fastmcp/fastmcp-worker-1.yaml"])
def test_creating_an_environment_overwrites_nothing(tmp_path: Path, existing: str) -> None:
    """An existing file is kept, and the other one isn't written either."""
    (tmp_path / existing).parent.mkdir(exist_ok=True)
    (tmp_path / existing).write_text("mine")
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(tmp_path)
    assert str(caught.value) == f"{tmp_path / existing} exists already: nothing was changed, name another folder"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_environment_in_a_path_that_cannot_be_resolved_is_refused(tmp_path: Path) -> None:
    """The message has the system's reason."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(loop / "new")
    assert str(caught.value) == f"folder {loop / 'new'} can't be created: Too many levels of symbolic links"


def test_environment_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """A file where a folder is needed."""
    (tmp_path / "fastmcp").touch()
    with pytest.raises(EnvironmentFolderError, match=r"/fastmcp must be a folder: "):
        create_environment(tmp_path)


def test_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the system's reason."""

    def refuse(_path: Path, _mode: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nfcli.models.inventory.scaffold.open_private", refuse)
    with pytest.raises(EnvironmentFolderError) as caught:
        create_environment(tmp_path)
    file = tmp_path / "fastmcp" / "fastmcp-worker-1.yaml"
    assert str(caught.value) == f"{file} can't be written: No space left on device"
