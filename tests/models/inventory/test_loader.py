"""Errors of an inventory: one line that names file, key path and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import InventoryError
from nfcli.models.inventory.loader import locate_key
from nfcli.models.inventory.schema import Inventory

Load = Callable[..., Inventory]

ONE = "workers:\n  w1:\n    - w1.yaml\n"


# "…" stands for the rule of a type, which the type's own test has in full
FLEET_RULE = "must be a worker's name or a glob, 1 to 256 characters without blanks and commas, and not all or any"
MISTAKES = [
    ({"w1": "service: fastmcp\nprot: 1"}, "w1.yaml: prot: no such key, did you mean port?"),
    ({"w1": "servce: fastmcp"}, "w1.yaml: servce: no such key, did you mean service? (and 1 more)"),
    (
        {"w1": "service: fastmcp\nauth_bearer: {tools: 1}"},
        (
            "w1.yaml: auth_bearer.tools: no such key, expected one of "
            "token_ttl, issuer_url, resource_server_url, required_scopes, token_scopes, "
            "max_wrong_tokens_per_minute, forward_auth, introspection"
        ),
    ),
    (
        {"w1": "service: fastmcp\nxyz: {policy: []}"},
        (
            "w1.yaml: xyz: no such key, expected one of service, host, port, endpoint, authentication_enabled, "
            "allow_unauthenticated, tls, require_tls, auth_bearer, allowed_hosts, allowed_origins, trusted_proxies, "
            "signed_jobs, allowed_relays, metrics, plugins, tools, watchdog_interval, "
            "memory_threshold_mbyte, memory_threshold_action, limits, fastmcp, uvicorn, logging"
        ),
    ),
    (
        {"w1": "service: fastmcp\nmemory_threshold_mbyte: much"},
        "w1.yaml: memory_threshold_mbyte: must be a whole number, 1 to 1000000, got 'much'",
    ),
    ({"w1": "service: fastmcp\nplugins: lab"}, "w1.yaml: plugins: …, got 'lab'"),
    (
        {"w1": "service: fastmcp\nplugins: [lab.tasks, lab-tasks]"},
        "w1.yaml: plugins[1]: …, got 'lab-tasks'",
    ),
    ({"w1": "service: fastmcp\nauth_bearer: 5"}, "w1.yaml: auth_bearer: …, got a number"),
    ({"w1": "service: fastmcp\nuvicorn: 5"}, "w1.yaml: uvicorn: …, got 5"),
    ({"w1": "service: fastmpc"}, "w1.yaml: service: must be 'fastmcp', got 'fastmpc'"),
    ({"w1": "service: FastMCP"}, "w1.yaml: service: must be 'fastmcp', got 'FastMCP'"),
    ({"w1": "service:"}, "w1.yaml: service: must be 'fastmcp', got nothing"),
    ({"w1": ""}, "inventory.yaml: workers.w1.service: required key is missing"),
    ({"inventory": "workers: {w1: }"}, "inventory.yaml: workers.w1.service: required key is missing"),
    (
        {"w1": "service: fastmcp\nport: 70000\nhost: '*'\nauthentication_enabled: maybe"},
        "w1.yaml: host: …, got '*' (and 2 more)",
    ),
    (
        {"w1": "service: fastmcp\nauth_bearer: {token_ttl: 0}"},
        "w1.yaml: auth_bearer.token_ttl: …, got 0",
    ),
    (
        {"w1": "service: fastmcp\nauth_bearer: {max_wrong_tokens_per_minute: -1}"},
        "w1.yaml: auth_bearer.max_wrong_tokens_per_minute: must be a whole number, 0 (no limit) to 1000, got -1",
    ),
    (
        {"w1": "service: fastmcp\nauth_bearer: {max_wrong_tokens_per_minute: true}"},
        "w1.yaml: auth_bearer.max_wrong_tokens_per_minute: must be a whole number, 0 (no limit) to 1000, got true",
    ),
    (
        {"w1": "service: fastmcp\nauth_bearer: {required_scopes: [a, b c]}"},
        "w1.yaml: auth_bearer.required_scopes[1]: …, got 'b c'",
    ),
    (
        {"inventory": "workers: {w1: [w1.yaml, {port: x}]}"},
        "inventory.yaml: workers.w1[1].port: must be a port number, 0 to 65535, got 'x'",
    ),
    (
        {"w1": "service: fastmcp\nport: ${PORT}"},
        "w1.yaml: port: environment variable PORT is not set: set it, or write ${PORT:-default}",
    ),
    ({"w1": "- service: fastmcp"}, "w1.yaml:1: …, got a list"),
    ({"w1": "service: fastmcp\nservice: x"}, "w1.yaml:2: key 'service' given twice: remove one"),
    ({"w1": None}, "inventory.yaml: workers.w1[0]: file {folder}/w1.yaml doesn't exist"),
    (
        {"inventory": f"workers: {{w1: [{'x' * 300}]}}"},
        f"inventory.yaml: workers.w1[0]: file {{folder}}/{'x' * 300} doesn't exist",
    ),
    (
        {"inventory": 'workers: {w1: ["a\\nb"]}'},
        "inventory.yaml: workers.w1[0]: file '{folder}/a\\nb' doesn't exist",
    ),
    ({"inventory": None}, "inventory.yaml: …No such file or directory"),
    ({"inventory": ""}, "inventory.yaml: workers: must have at least one worker, unless there is a broker to join"),
    (
        {"inventory": "workers: {w-*: [w1.yaml]}"},
        "inventory.yaml: workers: must have at least one worker, unless there is a broker to join",
    ),
    (
        {"inventory": "things: {}"},
        "inventory.yaml: things: no such key, expected one of broker, workers, topology, fleet, state",
    ),
    ({"inventory": "worker: {}"}, "inventory.yaml: worker: no such key, did you mean workers?"),
    ({"inventory": "WORKERS: {}"}, "inventory.yaml: WORKERS: no such key, did you mean workers?"),
    ({"inventory": f"{ONE}borker: {{}}"}, "inventory.yaml: borker: no such key, did you mean broker?"),
    (
        {"inventory": "root:$6$salt$hash:19700:0:99999:7:::\ndaemon:*:19700:0:99999:7:::"},
        (
            "inventory.yaml: (a key that is no plain word): no such key, expected one of broker, workers, topology, "
            "fleet, state"
        ),
    ),
    (
        {"w1": "service: fastmcp\nmetrics: {'9f86d081884c7d65': 1}"},
        "w1.yaml: metrics.(a key that is no plain word): no such key, expected one of host, port",
    ),
    ({"w1": "'a$b': 1\n'a$b': 2"}, "w1.yaml:2: key given twice: remove one"),
    ({"w1": "service: fastmcp\nmetrics: true"}, "w1.yaml: metrics: must be a mapping, got true"),
    ({"w1": "service: fastmcp\nhost: false"}, "w1.yaml: host: …, got false"),
    (
        {"w1": "service: fastmcp\nauth_bearer: {token_ttl: 12x}"},
        (
            "w1.yaml: auth_bearer.token_ttl: must be 1 to 3155760000 whole seconds, or with a unit: 30m, 12h, 7d, 2w, "
            "got 12x"
        ),
    ),
    (
        {"w1": "service: fastmcp\nauth_bearer: {token_ttl: 0}"},
        "w1.yaml: auth_bearer.token_ttl: must be 1 to 3155760000 whole seconds, got 0",
    ),
    *(
        (
            {"inventory": f"{ONE}\nfleet: [w2, {value!r}]"},
            f"inventory.yaml: fleet[1]: {FLEET_RULE}, got {value!r}",
        )
        for value in ("", "a b", "a,b", "all", "any")
    ),
    ({"inventory": f"{ONE}\nfleet: w1"}, "inventory.yaml: fleet: must be a list, got 'w1'"),
    (
        {"inventory": f"{ONE}\nfleet: [{', '.join(f'w{number}' for number in range(1_001))}]"},
        "inventory.yaml: fleet: must have at most 1000 names, got 1001",
    ),
    (
        {"inventory": "workers: [w1]"},
        "inventory.yaml: workers: must be a mapping of names to lists of files, got a list",
    ),
    (
        {"inventory": "workers: {w1: 5}"},
        "inventory.yaml: workers.w1: must be a list of files and mappings, got a number",
    ),
    (
        {"inventory": "workers: {w1: [[w1.yaml]]}"},
        "inventory.yaml: workers.w1[0]: must be the path of a file or a mapping, got a list",
    ),
    (
        {"inventory": "workers: {1: [w1.yaml]}"},
        "inventory.yaml: workers.1: a worker's name must be text: put it in quotes",
    ),
    (
        {"inventory": "workers: {'my worker': [w1.yaml]}"},
        (
            "inventory.yaml: workers: worker name 'my worker' must be made of letters, digits, dashes, dots and "
            "underscores and not begin with a dot or a dash"
        ),
    ),
    (
        {"inventory": "workers: {all: [w1.yaml]}"},
        "inventory.yaml: workers: worker name 'all' is reserved: choose another name",
    ),
    (
        {"inventory": f"{ONE}topology: {{workers: [w2]}}"},
        "inventory.yaml: topology.workers: 'w2' has no entry under workers: there is 'w1'",
    ),
    (
        {"inventory": "topology: {workers: [w2]}"},
        "inventory.yaml: topology.workers: 'w2' has no entry under workers: there is nothing",
    ),
    (
        {"inventory": f"{ONE}topology: {{workers: w1}}"},
        "inventory.yaml: topology.workers: …, got 'w1'",
    ),
    (
        {"inventory": f"{ONE}topology: {{workers: [{{w1: {{}}, w2: {{}}}}]}}"},
        "inventory.yaml: topology.workers[0]: …, got a mapping",
    ),
    ({"inventory": f"{ONE}topology: []"}, "inventory.yaml: topology: …, got a list"),
    (
        {"inventory": f"{ONE}topology: {{worker: [w1]}}"},
        "inventory.yaml: topology.worker: no such key, did you mean workers?",
    ),
    ({"inventory": f"{ONE}broker: {{}}"}, "inventory.yaml: broker.endpoint: required key is missing"),
    ({"inventory": f"{ONE}broker: yes"}, "inventory.yaml: broker: …, got true"),
    (
        {"inventory": f"{ONE}broker: {{endpoint: 'tcp://b:1', shared_key: secret}}"},
        "inventory.yaml: broker.shared_key: …",
    ),
]


@pytest.mark.parametrize(
    ("files", "message"),
    MISTAKES,
)
def test_error_names_file_key_and_what_was_expected(
    tmp_path: Path, inventory: Load, files: dict[str, str | None], message: str
) -> None:
    """One line for the first error, and how many more there are; nothing is loaded."""
    texts = {"inventory": ONE, "w1": "service: fastmcp"} | files
    with pytest.raises(InventoryError) as caught:
        inventory(**{f"{name}__yaml": text for name, text in texts.items() if text is not None})
    expected = re.escape(f"{tmp_path}/{message.replace('{folder}', str(tmp_path))}").replace("…", ".+")
    assert re.fullmatch(expected, str(caught.value))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["fastmcp", "w1", "1.yaml"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["workers", "topology", "broker", "w1", "w*", "service", "port", "auth_bearer", "endpoint"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_structure_loads_or_is_a_one_line_error(tmp_path: Path, inventory: Load, data: Any) -> None:
    """No inventory raises another exception."""
    text = as_yaml(data)
    try:
        outcome: Any = inventory(inventory__yaml=text)
    except InventoryError as error:
        outcome = str(error)
    assert isinstance(outcome, Inventory) or (outcome.startswith(f"{tmp_path}/inventory.yaml:") and "\n" not in outcome)


def as_yaml(data: Any) -> str:
    """Return flow style YAML without quotes around keys, so that globs and templates stay as users write them."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{key!r}: {as_yaml(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(map(as_yaml, data)) + "]"
    if isinstance(data, str):
        return "'" + "".join(char for char in data if char.isprintable()).replace("'", "''") + "'"
    return {None: "null", True: "true", False: "false"}.get(data, str(data))


def test_key_of_a_worker_is_located_in_its_file(tmp_path: Path) -> None:
    """Where it is set; where it isn't, in the file that names the service; for messages about its value."""
    file = tmp_path / "inventory.yaml"
    file.write_text("workers: {w1: [w1.yaml, {port: 8003}], w2: [w1.yaml]}\n")
    (tmp_path / "w1.yaml").write_text("service: fastmcp\n")
    environment = Environment(tmp_path, file)
    assert locate_key(environment, "w1", "port") == f"{file}: workers.w1[1].port"
    assert locate_key(environment, "w2", "port") == f"{tmp_path}/w1.yaml: port"
    assert locate_key(environment, "w3", "port") == "the inventory of worker w3"
    built_in = "an inventory of your own (nfcli --create-env DIR writes one)"
    assert locate_key(Environment(tmp_path, None), "w1", "port") == built_in


def test_extension_keys_hold_what_anchors_refer_to(inventory: Load) -> None:
    """They are ignored, whatever they contain, and only at the top level."""
    text = "x-common: &common\n  service: fastmcp\n  auth_bearer: {token_ttl: 30d}\nworkers:\n  w1:\n    - *common\n"
    assert inventory(inventory__yaml=text).workers["w1"].auth_bearer.token_ttl == 2_592_000
    with pytest.raises(InventoryError, match=r"workers\.w1\[0\]\.x-common: no such key"):
        inventory(inventory__yaml="workers:\n  w1:\n    - service: fastmcp\n      x-common: 1\n")
