"""Workers on a fabric: one whose tools call other services, and one whose lists change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.mcp.called_tools import Fabric
from support.mcp.change_streams import NO_METADATA, Stream
from support.mcp.served_worker import Serve
from support.mcp.tool_entries import entry
from support.tokens.token_store import store_token


@pytest.fixture
def fabric() -> Fabric:
    """Return the fabric of `tool_site`."""
    return Fabric()


@pytest.fixture
def tool_site(served_worker: Serve, fabric: Fabric) -> Any:
    """Serve a worker on a fabric with the task `ping` of the service `net`."""
    worker = served_worker(fabric=fabric, auth_bearer={"issuer_url": None})
    worker.worker.catalogue.replace("net", [entry()])
    return worker


@pytest.fixture
def stream_site(served_worker: Serve) -> Any:
    """Serve a worker on a fabric; it has a second token, `t`."""
    worker = served_worker(fabric=Fabric(), auth_bearer=NO_METADATA)
    store_token(worker.store, "other", "t", None)
    return worker


@pytest.fixture
def open_stream() -> Iterator[Callable[..., Stream]]:
    """Open streams until the end of the test; arguments are those of `Stream`."""
    with ExitStack() as streams:
        yield lambda *args, **kwargs: streams.enter_context(Stream(*args, **kwargs))
