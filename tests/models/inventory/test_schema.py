"""Inventories that load, and the configuration that they result in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.schema import Broker, Inventory, Topology, WorkerInventory
from nfcli.models.inventory.sections.bearer import AuthBearer

Load = Callable[..., Inventory]

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
ONE = "workers:\n  w1:\n    - w1.yaml\n"
OWNERS_SAMPLE = """\
service: fastmcp
host: "127.0.0.1"
port: 8001

authentication_enabled: true
auth_bearer:
  token_ttl: 86400
  issuer_url: "http://127.0.0.1:8001"
  resource_server_url: "http://127.0.0.1:8001"
  required_scopes: []
"""
OWNERS_WORKER = WorkerInventory(
    service="fastmcp",
    host="127.0.0.1",
    port=8001,
    authentication_enabled=True,
    auth_bearer=AuthBearer(
        token_ttl=86_400,
        issuer_url="http://127.0.0.1:8001",
        resource_server_url="http://127.0.0.1:8001",
        required_scopes=(),
    ),
)
NORFAB_INVENTORY = f"""\
# an environment made for NorFab, with workers of several services
broker:
  endpoint: "tcp://127.0.0.1:5555"
  shared_key: "{KEY}"
  some_later_key: 1
logging:
  handlers: {{terminal: {{level: "{{{{ anything }}}}"}}}}
client:
  agent_profiles: {{}}
hooks:
  startup: [{{function: "my.hooks:started"}}]
plugins:
  dummy: {{worker: "my:Worker"}}
workers:
  nornir-*:
    - nornir/common.yaml
  nornir-worker-1:
    - nornir/nornir-worker-1.yaml
  netbox-worker-1:
    - service: netbox
      token: {{{{ env["NO_SUCH_VARIABLE"] }}}}
  unreadable-worker-1:
    - unreadable.yaml
  fastmcp-worker-1:
    - fastmcp.yaml
topology:
  broker: true
  workers_start_interval: 0.1
  workers_init_timeout: 300
  workers:
    - filesharing-worker-1
    - nornir-worker-1:
        depends_on: [netbox-worker-1]
    - fastmcp-worker-1: {{}}
    - netbox-worker-1:
"""


def test_default_inventory_has_one_worker_with_authentication_on() -> None:
    """Without an inventory a worker serves on loopback and requires tokens."""
    assert load_inventory(Environment(Path("/nowhere"), None)) == Inventory(
        workers={
            "fastmcp-worker-1": WorkerInventory(
                service="fastmcp", host="127.0.0.1", port=8001, authentication_enabled=True
            )
        },
        topology=Topology(workers=("fastmcp-worker-1",)),
    )


def test_owners_sample_loads(inventory: Load) -> None:
    """The worker file of the acceptance transcripts."""
    loaded = inventory(inventory__yaml=ONE, w1__yaml=OWNERS_SAMPLE)
    assert loaded.workers == {"w1": OWNERS_WORKER}


def test_worker_without_keys_has_the_documented_defaults(inventory: Load) -> None:
    """Authentication is off unless the inventory turns it on, and the address is loopback."""
    worker = inventory(inventory__yaml=ONE, w1__yaml="service: fastmcp").workers["w1"]
    assert worker.model_dump() == {
        "service": "fastmcp",
        "host": "127.0.0.1",
        "port": 8001,
        "endpoint": None,
        "authentication_enabled": False,
        "allow_unauthenticated": False,
        "tls": None,
        "require_tls": False,
        "auth_bearer": {
            "token_ttl": None,
            "issuer_url": None,
            "resource_server_url": None,
            "required_scopes": (),
            "token_scopes": (),
            "max_wrong_tokens_per_minute": 10,
            "forward_auth": False,
            "introspection": (),
        },
        "allowed_hosts": (),
        "allowed_origins": (),
        "trusted_proxies": (),
        "signed_jobs": "optional",
        "allowed_relays": (),
        "metrics": None,
        "plugins": (),
        "tools": {
            "policy": (),
            "guardrails": (),
            "result_guardrails": (),
            "disable_builtin_guardrails": False,
            "timeout": 600,
        },
        "watchdog_interval": 30,
        "memory_threshold_mbyte": 1000,
        "memory_threshold_action": "log",
        "limits": (),
        "fastmcp": {},
        "uvicorn": {},
        "logging": {},
    }


def test_sources_are_merged_in_the_files_order(inventory: Load) -> None:
    """Each source of a glob that matches, case-sensitively, is merged once; later ones win, lists are appended."""
    loaded = inventory(
        inventory__yaml="""\
workers:
  w*: [common.yaml, {port: 1, auth_bearer: {token_ttl: 5}}]
  W*: [{port: 2, allowed_hosts: [never]}]
  w1: [common.yaml, own.yaml]
  w?: {host: "::1", allowed_hosts: [a, c]}
""",
        common__yaml="service: fastmcp\nport: 3\nallowed_hosts: [a, b]\nauth_bearer: {required_scopes: [r]}\n",
        own__yaml="host: localhost\n",
    )
    assert loaded == Inventory(
        workers={
            "w1": WorkerInventory(
                service="fastmcp",
                host="::1",
                port=1,
                allowed_hosts=("a", "b", "c"),
                auth_bearer=AuthBearer(token_ttl=5, required_scopes=("r",), token_scopes=("r",)),
            )
        },
        topology=Topology(workers=("w1",)),
    )


def test_workers_with_a_common_source_share_no_data(inventory: Load) -> None:
    """A list that one worker's file extends isn't extended for the next worker."""
    loaded = inventory(
        inventory__yaml="workers:\n  w*: [{service: fastmcp, port: 0, allowed_hosts: [a]}]\n"
        "  w1: [{allowed_hosts: [b]}]\n  w2: [{allowed_hosts: [c]}]\n"
    )
    assert {name: worker.allowed_hosts for name, worker in loaded.workers.items()} == {
        "w1": ("a", "b"),
        "w2": ("a", "c"),
    }


def test_norfab_inventory_loads_unchanged(tmp_path: Path, inventory: Load) -> None:
    """Workers of other services are only named, even if only NorFab can read their files."""
    (tmp_path / "nornir").mkdir()
    (tmp_path / "nornir" / "common.yaml").write_text("service: nornir\n{% if x %}\nhosts: {{ x.y | upper }}\n")
    (tmp_path / "unreadable.yaml").write_text("a: 1\n\x01\nservice: 'plugged_in'  # x\n")
    (tmp_path / "fastmcp.yaml").write_text(
        f"{OWNERS_SAMPLE}broker_endpoint: x\njobs_compress: true\nmax_concurrent_jobs: 5\nautostart_watchdog: false\n"
        "watchdog_interval: 30\nmemory_threshold_mbyte: 1000\nmemory_threshold_action: log\n"
    )
    loaded = inventory(inventory__yaml=NORFAB_INVENTORY)
    assert loaded == Inventory(
        broker=Broker(endpoint="tcp://127.0.0.1:5555", shared_key=KEY),
        workers={"fastmcp-worker-1": OWNERS_WORKER},
        topology=Topology(workers=("fastmcp-worker-1",), broker=True),
        foreign_workers={
            "nornir-worker-1": "nornir",
            "netbox-worker-1": "netbox",
            "unreadable-worker-1": "plugged_in",
            "filesharing-worker-1": "filesharing",
        },
    )


W12 = "  w1: [{service: fastmcp}]\n  w*: [{port: 0}]\n  w2: [{service: fastmcp}]\n"


@pytest.mark.parametrize("kind", [list, tuple])
def test_workers_of_the_topology_may_have_options(kind: type[list[Any]]) -> None:
    """As NorFab writes them; a name counts once."""
    entries = kind(["w1", {"w2": {"depends_on": ["w1"]}}, {"w3": None}, "w1"])
    assert Topology.model_validate({"workers": entries}).workers == ("w1", "w2", "w3")


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("", ("w1", "w2")),
        ("topology:", ("w1", "w2")),
        ("topology: {broker: false}", ("w1", "w2")),
        ("topology: {workers: }", ("w1", "w2")),
        ("topology: {broker: true}", ()),
        ("topology: {workers: []}", ()),
        ("topology: {workers: [w2]}", ("w2",)),
        ("topology: {workers: [w2, w1: {depends_on: [w2]}, w2]}", ("w2", "w1")),
        ("topology: {workers: [w1: ]}", ("w1",)),
        ("topology: {workers: ['${W:-w1}']}", ("w1",)),
    ],
)
def test_topology_lists_the_workers_of_this_machine(inventory: Load, topology: str, expected: tuple[str, ...]) -> None:
    """Names, or NorFab's names with options, without repeats; without a topology every exact name."""
    loaded = inventory(inventory__yaml=f"workers:\n{W12}{topology}\n")
    assert loaded.topology.workers == expected
    assert set(loaded.workers) == {"w1", "w2"}


def test_topology_may_name_a_worker_that_only_a_glob_configures(inventory: Load) -> None:
    """Many equal workers need only a glob and a list of names."""
    loaded = inventory(
        inventory__yaml="workers: {w-*: [{service: fastmcp, port: 0}]}\ntopology: {workers: [w-1, w-2]}\n"
    )
    assert loaded == Inventory(
        workers={name: WorkerInventory(service="fastmcp", port=0) for name in ("w-1", "w-2")},
        topology=Topology(workers=("w-1", "w-2")),
    )


def test_variables_are_replaced_in_values_and_paths(
    tmp_path: Path, inventory: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and flags may be text; names of files and workers may have variables too."""
    (tmp_path / ".env").write_text("PORT=8123\nAUTH=yes\nTTL=60\nFILE=w1\nNAME=w1\n")
    monkeypatch.setenv("PORT", "8124")
    loaded = inventory(
        inventory__yaml='workers:\n  {{ env.NAME }}:\n    - ${FILE}.yaml\n    - "${EMPTY:-w1}.yaml"\n',
        w1__yaml="service: fastmcp\nport: ${PORT}\nauthentication_enabled: {{ env['AUTH'] }}\n"
        'auth_bearer: {token_ttl: "${TTL}"}\nfastmcp: {x: "${PORT}"}\n',
    )
    assert loaded.workers == {
        "w1": WorkerInventory(
            service="fastmcp",
            port=8124,
            authentication_enabled=True,
            auth_bearer=AuthBearer(token_ttl=60),
            fastmcp={"x": "8124"},
        )
    }


def test_keys_without_a_value_have_their_defaults(inventory: Load) -> None:
    """`auth_bearer:` whose keys are all commented out is YAML's null."""
    loaded = inventory(
        inventory__yaml=f"broker:\ntopology:\n{ONE}",
        w1__yaml="service: fastmcp\nauth_bearer:\nallowed_hosts:\nallowed_origins:\nendpoint:\nfastmcp:\nuvicorn:\n"
        "logging:\n",
    )
    assert loaded.workers == {"w1": WorkerInventory(service="fastmcp")}


@pytest.mark.parametrize(
    ("auth_bearer", "expected"),
    [
        ({}, ("http://127.0.0.1:8001", "http://127.0.0.1:8001")),
        ({"issuer_url": "https://i", "resource_server_url": "https://r/mcp"}, ("https://i", "https://r/mcp")),
        ({"issuer_url": None, "resource_server_url": None}, (None, None)),
        ({"issuer_url": None}, (None, "http://127.0.0.1:8001")),
    ],
)
@pytest.mark.parametrize("worker_url", ["http://127.0.0.1:8001", "http://127.0.0.1:8001/mcp"])
def test_published_urls_are_the_workers_own_unless_given(
    auth_bearer: dict[str, Any], expected: tuple[str | None, str | None], worker_url: str
) -> None:
    """Unset: the worker's URL; null: nothing is published."""
    assert AuthBearer(**auth_bearer).metadata_urls(worker_url) == expected


@pytest.mark.parametrize(
    ("auth_bearer", "expected"),
    [
        ({}, ()),
        ({"required_scopes": ["a", "b"]}, ("a", "b")),
        ({"required_scopes": ["a"], "token_scopes": ["b"]}, ("b",)),
        ({"required_scopes": ["a"], "token_scopes": []}, ()),
        ({"required_scopes": ["a"], "token_scopes": None}, ("a",)),
        ({"required_scopes": None}, ()),
    ],
)
def test_tokens_carry_the_required_scopes_by_default(auth_bearer: dict[str, Any], expected: tuple[str, ...]) -> None:
    """With an explicit empty list they carry none."""
    assert AuthBearer(**auth_bearer).token_scopes == expected


@pytest.mark.parametrize(
    ("host", "port", "url", "is_loopback"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8001", True),
        ("localhost", 5, "http://localhost:5", True),
        ("::1", 5, "http://[::1]:5", True),
        ("", 5, "http://127.0.0.1:5", False),
        ("0.0.0.0", 5, "http://127.0.0.1:5", False),  # noqa: S104  never bound
        ("::", 5, "http://127.0.0.1:5", False),
        ("10.0.0.1", 5, "http://10.0.0.1:5", False),
    ],
)
def test_url_and_exposure_follow_from_the_host(host: str, port: int | None, url: str, is_loopback: bool) -> None:
    """The URL can be connected to; all interfaces are not loopback, although their URL is."""
    worker = WorkerInventory(service="fastmcp", host=host)
    assert (worker.base_url(port), worker.is_loopback) == (url, is_loopback)


@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False)])
def test_broker_speaks_curve_by_default(value: Any, expected: bool) -> None:
    """Null doesn't turn it off, as in NorFab."""
    assert Broker(endpoint="tcp://b:1", zmq_auth=value).zmq_auth is expected


@pytest.mark.parametrize("value", ["no", 0, "false", []])
def test_values_that_norfab_takes_for_true_do_not_turn_curve_off(value: Any) -> None:
    """Otherwise only one side would speak CURVE."""
    with pytest.raises(ValidationError, match="must be true or false without quotes"):
        Broker(endpoint="tcp://b:1", zmq_auth=value)


def test_a_worker_without_an_entry_is_remote_with_a_broker(inventory: Load) -> None:
    """The broker has its inventory; without a broker that is an error."""
    loaded = inventory(
        inventory__yaml="broker: {endpoint: 'tcp://b:1'}\nworkers: {w-*: [{service: fastmcp}], x: }\n"
        "topology: {workers: [w-1, x, y, filesharing-worker-1]}\n"
    )
    assert (list(loaded.workers), loaded.remote_workers) == (["w-1"], ("x", "y"))
    assert loaded.topology.workers == ("w-1", "x", "y")
    assert loaded.foreign_workers == {"filesharing-worker-1": "filesharing"}


@pytest.mark.parametrize(
    ("text", "fleet"),
    [("", ()), ("fleet:", ()), ("fleet: [w2, 'edge-*', w2, '${NO_SUCH:-w3}']", ("w2", "edge-*", "w3"))],
)
def test_a_fleet_is_names_and_globs_without_repeats(inventory: Load, text: str, fleet: tuple[str, ...]) -> None:
    """By default there are none; variables are replaced."""
    assert inventory(inventory__yaml=f"workers: {{w1: [{{service: fastmcp}}]}}\n{text}\n").fleet == fleet


def test_configuration_is_immutable() -> None:
    """A worker runs with what it started with."""
    with pytest.raises(ValidationError, match="frozen"):
        Inventory.default().workers["fastmcp-worker-1"].port = 1  # type: ignore[misc]
