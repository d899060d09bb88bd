"""The section `metrics`: where a worker serves its metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..types import BindHost, Kind, Port
from .base import InventorySection

METRICS_PORT = 9464


class Metrics(InventorySection):
    """Where a worker serves Prometheus its metrics."""

    host: Annotated[BindHost, Kind("IP address or host name")] = Field(
        default="127.0.0.1",
        description="Address that metrics are served at; empty for all interfaces. Whoever reaches it may read them",
    )
    port: Annotated[Port, Kind("port number")] = Field(
        default=METRICS_PORT,
        description="Port that metrics are served at; 0 takes a free one, which show fastmcp status reports",
    )
