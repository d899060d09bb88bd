"""The task that tells which tools and prompts a user may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.protocol.jobs import Result
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tasks import tools as tool_tasks
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.tool_entries import PROMPT, entry
from support.task_context import task_context
from support.tokens.token_store import store_token

Ask = Callable[..., Result]

PING = {"kind": "tool", "name": "service_net__task_ping", "service": "net"}
LOOK = {"kind": "prompt", "name": "service_net__task_ping__prompt_look", "service": "net"}
POLICY = [{"service": "net", "users": ["ann"]}, {"service": "net", "scopes": ["net"]}, {"action": "reject"}]


@pytest.fixture
def ask(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> Ask:
    """Run the task in a worker where ann may use what the service `net` has, and has a token."""
    store = open_store()
    store_token(store, "ann", "ann-1", None)
    registry = TaskRegistry(tool_tasks)

    def run_task(arguments: dict[str, Any], **settings: Any) -> Result:
        inventory = WorkerInventory.model_validate(
            {"service": "fastmcp", "authentication_enabled": True, "tools": {"policy": POLICY}, **settings}
        )
        catalogue = ToolCatalogue("w1", "fastmcp", [], ToolPolicy(inventory.tools))
        catalogue.replace("net", [entry(mcp={"prompts": [PROMPT]})])
        context = task_context(
            Environment(tmp_path, None), registry, store, trail, inventory=inventory, catalogue=catalogue
        )
        return registry.run(context, "bearer_token_access", arguments)

    return run_task


@pytest.mark.parametrize("arguments", [{"username": "ann"}, {"token": "ann-1"}])
def test_user_or_token_tells_what_the_rules_allow(ask: Ask, arguments: dict[str, Any]) -> None:
    """Tools and prompts alike."""
    found = ask(arguments)
    assert (found.result, found.messages) == ([PING, LOOK], [])


def test_user_without_a_token_is_said_to_have_none(ask: Ask) -> None:
    """The rules are the same once one is stored."""
    found = ask({"username": "bob"})
    assert (found.result, found.messages) == ([], ["this user has no live token"])


def test_scopes_of_tokens_count(ask: Ask) -> None:
    """All tokens have those of the inventory."""
    assert ask({"username": "bob"}, auth_bearer={"token_scopes": ["net"]}).result == [PING, LOOK]


def test_token_that_is_not_valid_gives_access_to_nothing(ask: Ask) -> None:
    """It fails, as the token would."""
    found = ask({"token": "other"})
    assert found.failed
    assert found.errors == ["the token is unknown, expired or deleted: nothing may be used with it"]


@pytest.mark.parametrize("arguments", [{}, {"username": "ann", "token": "ann-1"}])
def test_exactly_one_of_the_two_is_given(ask: Ask, arguments: dict[str, Any]) -> None:
    """Neither and both are refused."""
    assert ask(arguments).failed


def test_without_authentication_everybody_has_the_same_access(ask: Ask) -> None:
    """And it is said so."""
    found = ask({"username": "ann"}, authentication_enabled=False)
    assert (found.result, found.messages) == ([], ["authentication is off: everybody may use these"])
