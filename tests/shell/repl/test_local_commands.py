"""Commands that are no tasks."""

import json
from collections.abc import Callable

from support.shell.bench import Printed
from support.shell.fake_client import FakeClient

Run = Callable[[str], Printed]


def test_local_commands_need_no_worker(run: Run, client: FakeClient) -> None:
    """Tree, pages, schemas, client and inventory are printed without a job."""
    assert run("man tree show.norfab.client")[1].startswith("root\n└── show:")
    assert json.loads(run("man json-schema fastmcp.auth.check-token")[1])["required"] == ["token"]
    assert json.loads(run("show norfab client")[1]) == client.describe()
    assert json.loads(run("show norfab inventory")[1]) == client.inventory.redacted()
    assert (
        run("show norfab workers")[1].split("\n")[0] == " name              service  status  endpoint  alive (s)  note"
    )
    assert run("man tree nothing")[0] == 2
    assert run("man page nothing")[0] == 2
    assert run("man page")[0] == 0
    assert client.calls == []


def test_tasks_are_described_by_a_worker(run: Run, client: FakeClient) -> None:
    """`man tasks` asks any worker for `list_tasks`; one that fails is named."""
    client.answers["list_tasks"] = [{"name": "echo", "description": "Give it back"}]
    assert run("man tasks") == (0, "echo  Give it back\n", "")
    assert client.calls == [{"service": "fastmcp", "task": "list_tasks", "workers": "any"}]
    assert run("man tasks nothing")[0] == 2
    client.failing["fastmcp-worker-1"] = "busy"
    assert run("man tasks") == (1, "", "fastmcp-worker-1: busy\n")
