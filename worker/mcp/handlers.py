"""What the MCP server answers: lists of tools and prompts by the page, calls, prompts, and streams of changes."""

from __future__ import annotations

import binascii
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListToolsResult,
    PaginatedRequestParams,
    PromptMessage,
    TextContent,
)

from ...models.errors import PromptError
from ..fabric.client import FabricClient
from ..jobs.task_context import TaskContext
from .notifications import ListChanges
from .tool_calls import ToolCalls

log = logging.getLogger(__name__)

PAGE_LENGTH = 100
_MARK = b"after:"

_Context = ServerRequestContext[Any, Any]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Item = TypeVar("_Item", bound=_Named)


class _ChangingServer(Server[Any]):
    """A server whose lists change, and which says so in the handshake."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return what the handshake tells."""
        changing = notification_options or NotificationOptions(prompts_changed=True, tools_changed=True)
        return super().create_initialization_options(changing, experimental_capabilities, extensions)


def make_server(worker: TaskContext, changes: ListChanges | None, fabric: FabricClient | None = None) -> Server[Any]:
    """Return the MCP server of a worker's catalogue.

    Args:
        worker: whose catalogue and tasks they are.
        changes: tells clients that the lists have changed; None where they never do.
        fabric: sends jobs to other services; None where there are none.
    """
    handlers = _Handlers(worker, fabric)
    has_prompts = changes is not None or bool(worker.catalogue.prompts())
    kind = Server[Any] if changes is None else _ChangingServer
    server = kind(
        worker.name,
        version=version("nfcli"),
        title=f"nfcli worker {worker.name}",
        get_tool_input_schema=handlers.input_schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_prompts=handlers.list_prompts if has_prompts else None,
        on_get_prompt=handlers.get_prompt if has_prompts else None,
        on_subscriptions_listen=None if changes is None else changes.listen,
    )
    # OpenTelemetry's span takes 4 % of each request, and nothing here exports spans.
    server.middleware.clear()
    return server


class _Handlers:
    def __init__(self, worker: TaskContext, fabric: FabricClient | None) -> None:
        self._catalogue = worker.catalogue
        self._calls = ToolCalls(worker, fabric, timeout=worker.inventory.tools.timeout)

    def input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self._catalogue.find(name)
        return None if tool is None else tool.tool.input_schema

    async def list_tools(self, _context: _Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        page, cursor = _page(self._catalogue.snapshot.tools, params)
        return ListToolsResult(tools=[each.tool for each in page], next_cursor=cursor)

    async def list_prompts(self, _context: _Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        page, cursor = _page(self._catalogue.snapshot.prompts, params)
        return ListPromptsResult(prompts=[each.prompt for each in page], next_cursor=cursor)

    async def call_tool(self, context: _Context, params: CallToolRequestParams) -> CallToolResult:
        return await self._calls.call(params, _client(), context.request)

    async def get_prompt(self, _context: _Context, params: GetPromptRequestParams) -> GetPromptResult:
        found = self._catalogue.find_prompt(params.name)
        if found is None:
            raise MCPError(INVALID_PARAMS, f"unknown prompt {params.name[:64]!r}: prompts/list names those there are")
        log.info("MCP client %r reads prompt %s", _client(), found.name)
        render = partial(found.template.render, params.arguments or {})
        try:
            messages = await anyio.to_thread.run_sync(render, abandon_on_cancel=True)
        except PromptError as error:
            raise MCPError(INVALID_PARAMS, f"prompt {found.template.name}: {error}") from None
        return GetPromptResult(
            description=found.prompt.description,
            messages=[PromptMessage(role=role, content=TextContent(type="text", text=text)) for role, text in messages],
        )


def _client() -> str:
    access = get_access_token()
    return access.client_id if access else "(unauthenticated)"


def _page(items: Mapping[str, _Item], params: PaginatedRequestParams | None) -> tuple[list[_Item], str | None]:
    """Return one page of items that are in their names' order, and the cursor of the next one.

    A cursor is the last name that was seen: what has come or gone since moves nothing out of the way.

    Raises:
        MCPError: the cursor is none.
    """
    listed = list(items.values())
    after = None if params is None or params.cursor is None else _name_in(params.cursor)
    start = 0 if after is None else bisect_right(listed, after, key=attrgetter("name"))
    page = listed[start : start + PAGE_LENGTH]
    return page, _cursor(page[-1].name) if start + PAGE_LENGTH < len(listed) else None


def _cursor(name: str) -> str:
    return urlsafe_b64encode(_MARK + name.encode()).decode()


def _name_in(cursor: str) -> str:
    try:
        mark, name = (decoded := urlsafe_b64decode(cursor.encode()))[: len(_MARK)], decoded[len(_MARK) :].decode()
    except (binascii.Error, ValueError):
        mark, name = b"", ""
    if mark != _MARK:
        raise MCPError(INVALID_PARAMS, "the cursor is none that this server gave: begin again without one")
    return name
