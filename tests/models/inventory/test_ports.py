"""Two workers of one machine can't have the same port: the inventory is refused before one of them fails to start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import InventoryError
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.schema import Inventory

Load = Callable[..., Inventory]


def two(first: str, second: str, more: str = "") -> str:
    """Return an inventory of two workers with these keys."""
    texts = (f"    - {{service: fastmcp, authentication_enabled: true, {keys}}}\n" for keys in (first, second))
    a, b = texts
    return f"workers:\n  mcp-1:\n{a}  mcp-2:\n{b}{more}"


CLASHES = [
    ("port: 8100", "port: 8100", 8100),
    ("", "port: 8001", 8001),
    ("", "", 8001),
    ("port: 8100, host: localhost", "port: 8100, host: 127.0.0.1", 8100),
    ("port: 8100, host: LocalHost", "port: 8100, host: '::1'", 8100),
    ("port: 8100, host: ''", "port: 8100, host: 10.0.0.1", 8100),
    ("port: 8100, host: ''", "port: 8100, host: '::'", 8100),
    ("port: 8100, host: '::'", "port: 8100, host: 10.0.0.1", 8100),
    ("port: 8100, host: 10.0.0.1", "port: 8100, host: 0.0.0.0", 8100),
    ("port: 8100, host: 'fd00::1'", "port: 8100, host: '::'", 8100),
    ("port: 8100, host: mcp.example.com", "port: 8100, host: 0.0.0.0", 8100),
    ("port: 8100, host: 'fd00::1'", "port: 8100, host: 'FD00:0::1'", 8100),
]


@pytest.mark.parametrize(("first", "second", "port"), CLASHES)
def test_the_error_names_both_workers_and_the_port(
    tmp_path: Path, inventory: Load, first: str, second: str, port: int
) -> None:
    """The defaults of host and port count, and so do addresses of one meaning."""
    with pytest.raises(InventoryError) as caught:
        inventory(inventory__yaml=two(first, second))
    assert str(caught.value) == (
        f"{tmp_path}/inventory.yaml: workers: mcp-1 and mcp-2 have the same port {port}: give one of them another "
        "port, or 0 for a free one; if they run on different machines, list those of this one in topology.workers"
    )


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("port: 0, metrics: {}", "port: 0, metrics: {}", "the metrics of mcp-1 and the metrics of mcp-2"),
        ("port: 9464", "port: 0, metrics: {}", "mcp-1 and the metrics of mcp-2"),
        ("port: 9464, metrics: {host: ''}", "port: 0", "mcp-1 and the metrics of mcp-1"),
    ],
)
def test_ports_of_metrics_count(tmp_path: Path, inventory: Load, first: str, second: str, names: str) -> None:
    """Those of one worker and of two."""
    with pytest.raises(InventoryError, match=f"^{tmp_path}/inventory.yaml: workers: {names} have the same port 9464: "):
        inventory(inventory__yaml=two(first, second))


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        ("port: 0, metrics: {port: 0}", "port: 0, metrics: {port: 0}", ""),
        ("port: 0, metrics: {}", "port: 0, metrics: {port: 9465}", ""),
        ("port: 0, metrics: {}", "port: 9464, metrics: null", "topology: {workers: [mcp-1]}"),
        ("port: 8100", "port: 8101", ""),
        ("port: 0", "port: 0", ""),
        ("port: 0", "port: 8001", ""),
        ("port: 8100, host: 127.0.0.1", "port: 8100, host: 127.0.0.2", ""),
        ("port: 8100, host: 0.0.0.0", "port: 8100, host: '::1'", ""),
        ("port: 8100, host: ''", "port: 8100, host: 'fd00::1'", ""),
        ("port: 8100, host: a.example.com", "port: 8100, host: b.example.com", ""),
        ("port: 8100", "port: 8100", "topology: {workers: [mcp-2]}"),
        ("port: 8100", "port: 8100", "topology: {workers: []}"),
        ("port: 8100", "port: 8100", "topology: {broker: true}\nbroker: {endpoint: 'tcp://b:1'}"),
    ],
)
def test_workers_that_do_not_meet_are_accepted(inventory: Load, first: str, second: str, more: str) -> None:
    """Those of other machines never do."""
    assert [*inventory(inventory__yaml=two(first, second, more)).workers] == ["mcp-1", "mcp-2"]


def test_a_check_of_the_inventory_gets_the_error_and_the_workers(tmp_path: Path) -> None:
    """So that all else of the workers is checked."""
    (file := tmp_path / "inventory.yaml").write_text(two("", ""))
    errors: list[InventoryError] = []
    loaded = load_inventory(Environment(tmp_path, file), errors)
    (error,) = errors
    assert "mcp-1 and mcp-2 have the same port 8001" in str(error)
    assert [*loaded.workers] == ["mcp-1", "mcp-2"]
