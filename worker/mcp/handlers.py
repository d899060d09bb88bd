"""Handlers of MCP methods: tools and prompts by the page, tool calls, prompts, subscriptions."""

from __future__ import annotations

import binascii
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from itertools import accumulate, islice, takewhile
from operator import attrgetter
from typing import Any, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListToolsResult,
    PaginatedRequestParams,
    PromptMessage,
    TextContent,
)

from ...models.errors import PromptError, ToolCallError
from ..tools.catalogue import ToolCatalogue
from ..tools.definitions import PublishedPrompt, PublishedTool
from ..tools.texts import clean_line
from .notifications import ListChangeNotifier
from .running_calls import caller_token, current_user, mcp_client_name
from .tool_calls import ToolCalls

log = logging.getLogger(__name__)

# Many clients ask for one page only: it holds what the catalogue may have, unless that is very long.
MAX_PAGE_BYTES = 16 * 1024 * 1024
_CURSOR_PREFIX = b"after:"

_Context = ServerRequestContext[Any, Any]
_Item = TypeVar("_Item", PublishedTool, PublishedPrompt)


class _ChangingServer(Server[Any]):
    """A server that announces `listChanged` in the handshake."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(prompts_changed=True, tools_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


def make_server(
    name: str, catalogue: ToolCatalogue, calls: ToolCalls, notifier: ListChangeNotifier | None
) -> Server[Any]:
    """Return the MCP server of the worker `name`; `notifier` is None where the lists never change."""
    handlers = _Handlers(catalogue, calls)
    has_prompts = notifier is not None or bool(catalogue.prompts)
    server_class = Server[Any] if notifier is None else _ChangingServer
    server = server_class(
        name,
        version=version("nfcli"),
        title=f"nfcli worker {name}",
        get_tool_input_schema=handlers.input_schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=calls.call,
        on_list_prompts=handlers.list_prompts if has_prompts else None,
        on_get_prompt=handlers.get_prompt if has_prompts else None,
        on_subscriptions_listen=None if notifier is None else notifier.listen,
    )
    # OpenTelemetry's span takes 4 % of each request, and nothing here exports spans.
    server.middleware.clear()
    return server


class _Handlers:
    def __init__(self, catalogue: ToolCatalogue, calls: ToolCalls) -> None:
        self._catalogue = catalogue
        self._calls = calls

    def input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self._catalogue.tools.get(name)
        return tool.tool.input_schema if tool is not None and tool.access.allows(current_user()) else None

    async def list_tools(self, _context: _Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        page, cursor = _page(self._catalogue.tools, params)
        return ListToolsResult(tools=[each.tool for each in page], next_cursor=cursor)

    async def list_prompts(self, _context: _Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        page, cursor = _page(self._catalogue.prompts, params)
        return ListPromptsResult(prompts=[each.prompt for each in page], next_cursor=cursor)

    async def get_prompt(self, _context: _Context, params: GetPromptRequestParams) -> GetPromptResult:
        found = self._catalogue.prompts.get(params.name)
        if found is None or not found.access.allows(current_user()):
            raise MCPError(
                INVALID_PARAMS, f"unknown prompt {params.name[:64]!r}; call prompts/list for the available names"
            )
        log.info("MCP client %r gets prompt %s", mcp_client_name(), found.name)
        render = partial(found.template.render, params.arguments or {})
        try:
            messages = await self._calls.check(caller_token(), render)
        except PromptError as error:
            raise MCPError(INVALID_PARAMS, clean_line(f"prompt {found.template.name}: {error}", None)) from None
        except ToolCallError as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from None
        return GetPromptResult(
            description=found.prompt.description,
            messages=[PromptMessage(role=role, content=TextContent(type="text", text=text)) for role, text in messages],
        )


def _page(items: Mapping[str, _Item], params: PaginatedRequestParams | None) -> tuple[list[_Item], str | None]:
    """Return one page of the items that the caller may use, by name, and the cursor of the next page.

    A cursor is the last name of the previous page: items that were added or removed since shift nothing.

    Raises:
        MCPError: the cursor is invalid.
    """
    user = current_user()
    listed = [each for each in items.values() if each.access.allows(user)]
    after = None if params is None or params.cursor is None else _decode_cursor(params.cursor)
    start = 0 if after is None else bisect_right(listed, after, key=attrgetter("name"))
    lengths = accumulate(each.listed_bytes for each in islice(listed, start, None))
    count = max(1, sum(1 for _ in takewhile(MAX_PAGE_BYTES.__ge__, lengths)))
    page = listed[start : start + count]
    return page, _encode_cursor(page[-1].name) if start + count < len(listed) else None


def _encode_cursor(name: str) -> str:
    return urlsafe_b64encode(_CURSOR_PREFIX + name.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        decoded = urlsafe_b64decode(cursor.encode())
        if decoded.startswith(_CURSOR_PREFIX):
            return decoded.removeprefix(_CURSOR_PREFIX).decode()
    except (binascii.Error, ValueError):
        pass
    raise MCPError(INVALID_PARAMS, "invalid cursor; restart without one")
