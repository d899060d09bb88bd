"""Reading the inventory again: what changes at once, what has to wait, and that a mistake changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.errors import NfcliError, WorkerStartError
from nfcli.models.inventory.loader import load_inventory
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.configuration.reloading import Reloader
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.workers import EnvironmentFactory

DENY = {"policy": [{"service": "fastmcp", "tasks": ["echo"], "action": "reject"}]}


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment of one worker."""
    return environment_factory()


@pytest.fixture
def reloader(environment: Environment) -> Reloader:
    """Make a reloader of its inventory, without parts."""
    return Reloader(environment, DEFAULT_WORKER, load_inventory(environment).workers[DEFAULT_WORKER])


def change(environment: Environment, **keys: Any) -> None:
    """Change keys of the worker."""
    assert environment.inventory_file is not None
    data = json.loads(environment.inventory_file.read_text())
    data["workers"][DEFAULT_WORKER][0].update(keys)
    environment.inventory_file.write_text(json.dumps(data))


def test_parts_get_what_they_read_and_the_rest_waits(environment: Environment, reloader: Reloader) -> None:
    """The line has both; what waits is not in force for any part."""
    seen: list[WorkerInventory] = []
    reloader.add("allowed_hosts", prepare=lambda new: partial(seen.append, new))
    assert asyncio.run(reloader.reload()) == "nothing to apply"
    change(environment, allowed_hosts=["a.example"], signed_jobs="required", tools={"timeout": 5})
    said = asyncio.run(reloader.reload())
    assert said == "in force now: allowed_hosts; changed at the next start: signed_jobs, tools.timeout"
    assert (seen[-1].allowed_hosts, seen[-1].signed_jobs, seen[-1].tools.timeout) == (("a.example",), "optional", 600)
    assert reloader.inventory == seen[-1]


def test_a_part_that_cannot_change_keeps_all_others_as_they_are(environment: Environment, reloader: Reloader) -> None:
    """So does a mistake in the file."""
    applied: list[WorkerInventory] = []

    def refuse(_: WorkerInventory) -> Callable[[], None]:
        raise WorkerStartError("the certificate can't be read")

    before = reloader.inventory
    reloader.add("allowed_hosts", prepare=lambda new: partial(applied.append, new))
    reloader.add(prepare=refuse)
    change(environment, allowed_hosts=["a.example"])
    with pytest.raises(NfcliError, match="certificate"):
        asyncio.run(reloader.reload())
    change(environment, nosuch=1)
    with pytest.raises(NfcliError, match="nosuch: no such key"):
        asyncio.run(reloader.reload())
    assert (applied, reloader.inventory) == ([], before)


def test_rules_for_tools_apply_to_what_is_published(environment: Environment, reloader: Reloader) -> None:
    """Tools of this worker and of other services come and go with them, and clients are notified."""
    entries = [{"name": name, "inputSchema": {"type": "object"}, "mcp": {}} for name in ("echo", "show")]
    catalogue = ToolCatalogue(DEFAULT_WORKER, "fastmcp", entries, ToolPolicy(reloader.inventory.tools))
    catalogue.replace("net", entries)
    changes: list[object] = []
    catalogue.on_change.append(changes.append)
    reloader.add("tools", prepare=lambda new: partial(catalogue.apply_policy, ToolPolicy(new.tools)))
    everything = list(catalogue.tools)
    change(environment, tools=DENY)
    assert asyncio.run(reloader.reload()) == "in force now: tools"
    assert [name for name in everything if name not in catalogue.tools] == ["service_fastmcp__task_echo"]
    change(environment, tools={})
    asyncio.run(reloader.reload())
    assert (list(catalogue.tools), len(changes)) == (everything, 2)
