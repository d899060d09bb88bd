"""The Containerfile and the Kubernetes manifest of the manual fit each other, nfcli and its repository."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli.man.pages import read_example
from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.http.policy import HEALTH_PATH, READY_PATH
from support.examples import ROOT
from support.shell.containerfile import parse_containerfile

BUILD, INVENTORY, MANIFEST = "Containerfile", "container-inventory.yaml", "kubernetes.yaml"
INSTRUCTIONS = {
    *("FROM", "COPY", "RUN", "ENV", "WORKDIR", "VOLUME", "EXPOSE", "USER", "STOPSIGNAL", "HEALTHCHECK"),
    *("ENTRYPOINT", "CMD"),
}


def loaded(folder: Path, text: str) -> WorkerInventory:
    """Return the only worker of an inventory."""
    file = folder / "inventory.yaml"
    file.write_text(text)
    (worker,) = load_inventory(Environment(folder, file)).workers.values()
    return worker


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The objects of the manifest by kind; of the services, that for MCP."""
    objects = list(yaml.safe_load_all(read_example(MANIFEST)))
    return {each["kind"]: each for each in reversed(objects)}


def test_the_containerfile_has_known_instructions_and_copies_the_whole_package() -> None:
    """Each source exists, and with them the package can be built: nothing else of a clone gets into the image."""
    found = parse_containerfile(read_example(BUILD))
    assert {name for name, _ in found} == INSTRUCTIONS
    sources = [words.split()[:-1] for name, words in found if name == "COPY" and not words.startswith("--from")]
    copied = {source for each in sources for source in each}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {package.split(".")[1] for package in packages if "." in package}
    assert copied == {
        *folders,
        "pyproject.toml",
        "README.md",
        "__init__.py",
        "py.typed",
        f"man/pages/examples/{INVENTORY}",
    }


def test_the_image_runs_as_a_number_and_forgets_nothing_at_a_stop() -> None:
    """Kubernetes can't check names of users; the first process gets signals itself, and the state is a volume."""
    found = dict(parse_containerfile(read_example(BUILD)))
    user, _, group = found["USER"].partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert user != "0"
    for name in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(found[name]), list)
    assert f"NFCLI_STATE={found['VOLUME']}/" in found["ENV"]


def test_the_inventories_of_both_need_tokens_and_bind_what_is_exposed(manifest: dict[str, Any], tmp_path: Path) -> None:
    """And are the same otherwise."""
    for text in (read_example(INVENTORY), manifest["ConfigMap"]["data"]["inventory.yaml"]):
        worker = loaded(tmp_path, text)
        assert worker.authentication_enabled
        assert worker.metrics is not None
        assert (worker.host, worker.port, worker.metrics.host, worker.metrics.port) == ("", 8001, "", 9464)
    assert dict(parse_containerfile(read_example(BUILD)))["EXPOSE"].split() == ["8001", "9464"]


def test_the_manifest_asks_the_probes_and_gives_the_container_no_rights(manifest: dict[str, Any]) -> None:
    """A pod is alive while it answers, and gets requests while tokens can be checked and stored."""
    pod = manifest["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": READY_PATH, "readiness": READY_PATH, "liveness": HEALTH_PATH}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"mcp": 8001, "metrics": 9464}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    found = dict(parse_containerfile(read_example(BUILD)))
    user = pod["securityContext"]["runAsUser"]
    assert found["USER"] == f"{user}:{pod['securityContext']['runAsGroup']}"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (mounts["config"], mounts["state"]) == (found["WORKDIR"], found["VOLUME"])


def test_the_services_of_the_manifest_find_the_pods(manifest: dict[str, Any]) -> None:
    """By labels; the names that clients use are allowed."""
    labels = manifest["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    services = [each for each in yaml.safe_load_all(read_example(MANIFEST)) if each["kind"] == "Service"]
    assert [service["spec"]["selector"] for service in services] == [labels, labels]
    assert manifest["StatefulSet"]["spec"]["serviceName"] in {service["metadata"]["name"] for service in services}
    name = manifest["Service"]["metadata"]["name"]
    assert f"allowed_hosts: [{name}, {name}.default.svc" in manifest["ConfigMap"]["data"]["inventory.yaml"]
